"""ScaleSpaceFlow: motion as a flow through a frame and its blurred copies."""
