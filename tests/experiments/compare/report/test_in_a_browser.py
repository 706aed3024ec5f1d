"""The page in a headless browser: drawn, hovered over, dragged, sorted, and silent.

What users would do is done by a script that is appended to a copy of the page.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import pytest

from experiments.compare.report.page import make_page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
pytestmark = pytest.mark.skipif(
    BROWSER is None,
    reason=f"needs a browser to look at the page: {' or '.join(BROWSERS)}",
)
EVIL = "<script>document.title='evil'</script><img src=x onerror=document.title='evil'>"
ACTIONS = Path(__file__).with_name("report_actions.js").read_text(encoding="utf-8")
SECONDS = 120


def browse(path, profile, *options, width=1280, height=1000):
    """Return what the browser prints and says about a page."""
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--enable-logging=stderr",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={profile}",
            f"--window-size={width},{height}",
            "--virtual-time-budget=3000",
            *options,
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    console = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    return done.stdout, console


def save_page(folder, results, comparison):
    path = folder / "report.html"
    path.write_text(make_page(comparison, results), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(samples, tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    results = samples.make_results(folder)
    return save_page(folder, results, samples.compare(results))


@pytest.fixture(scope="module", params=[1280, 700])
def found(page, request, tmp_path_factory):
    copy = page.with_name(f"copy_{request.param}.html")
    text = page.read_text(encoding="utf-8")
    text = re.sub(r"script-src '.*?'", "script-src 'unsafe-inline'", text)
    copy.write_text(text.replace("</body>", f"<script>{ACTIONS}</script></body>"))
    profile = tmp_path_factory.mktemp("profile")
    dump, console = browse(copy, profile, "--dump-dom", width=request.param)
    probe = re.search(r'<pre id="probe">(.*?)</pre>', dump, re.DOTALL)
    assert probe and console == []
    content = json.loads(probe[1].replace("&lt;", "<").replace("&gt;", ">"))
    assert "error" not in content, content["error"]
    return content


def test_the_page_fits_and_asks_nothing_of_the_network(found):
    assert found["wide"] <= 0
    assert found["fetched"] == []


def test_curves_have_all_points_and_tell_their_values(found):
    assert found["points"] == 3 * 4
    lines = dict(line.rsplit("\t", 1) for line in found["tip"].splitlines()[1:])
    assert found["tip"].startswith("SVT-AV1")
    assert lines["rate"] == "25" and float(lines["bits per pixel"]) > 0
    assert {"PSNR YUV 6:1:1 (dB)", "tOF, lower is better", "MS-SSIM Y (dB)"} < set(
        lines
    )
    assert found["tip_beyond"] <= 0 and found["tip_gone"]


def test_arrow_keys_walk_over_points(found):
    # The second point of the first codec, then the same of the next.
    assert found["keyed"].startswith("UI2C")
    assert "rate\t21" in found["keyed"]


def test_selectors_and_legend_change_what_is_drawn(found):
    assert found["axis"] == ["rate (bits per pixel)", "tOF, lower is better"]
    assert found["hollow"] == 1
    assert found["without_one"] == 2 * 4 and found["with_all"] == 3 * 4
    assert found["pressed"] == "false" and found["focused"]


def test_frames_are_drawn_and_tell_their_values(found):
    # Bits and quality of three codecs.
    assert found["frame_lines"] == 6
    assert found["frame_tip"].startswith("frame 1")
    assert found["frame_tip"].count("kbit") == 3
    assert re.search(r"x265\t[\d.]+ kbit\t\d\d\.\d+", found["frame_tip"])
    # There is nothing before the first frame that it could flicker against.
    assert re.search(r"^x265\t[\d.]+ kbit\t?$", found["first_frame_tip"], re.MULTILINE)
    assert found["rates"][0].startswith("x265: rate 37, ")


def test_the_slider_divides_the_pictures(found):
    assert found["left"] == 64
    assert len(found["options"]) == 1 + 3 * 4 and found["options"][0] == "source"
    value, divider, clip = found["dragged"]
    assert abs(float(value) - 25) <= 1
    assert divider == f"{value}%" and clip == f"inset(0px 0px 0px {value}%)"
    assert found["only_moved"] == value
    assert found["slid"] == "90%"
    assert found["caption"].startswith("SVT-AV1, rate 45")
    assert found["zoomed"] == 4 * 64


def test_the_table_sorts_both_ways(found):
    # Two codecs; three sequences, two numbers of two sets and of all.
    assert len(found["rows"]) == 2 * (3 + 2 * 2 + 2)
    assert found["sorted"] == sorted(found["sorted"])
    assert found["reversed"] == sorted(found["sorted"], reverse=True)
    assert found["sort"] == "descending"
    assert sorted(found["sequences"]) == sorted(["Beauty", "Jockey", "Johnny"] * 2)
    assert any("low overlap: the curves share 61 %" in row[-1] for row in found["rows"])


def test_names_do_not_run_and_nothing_complains(samples, tmp_path):
    results = samples.make_results(
        tmp_path, codecs=dict(zip("ab", samples.CODECS.values(), strict=False))
    )
    for result in results:
        result.name += EVIL
        for sequence in result.sequences:
            sequence.set += EVIL
            sequence.name += EVIL
    page = save_page(tmp_path, results, samples.compare(results, notes=[EVIL]))
    dump, console = browse(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert re.search("<title>(.*?)</title>", dump)[1].startswith("Comparison with a")
    assert dump.count('class="point"') >= 8
    assert '<img src="x"' not in dump


def test_a_page_whose_script_was_changed_does_not_run(page, tmp_path):
    copy = page.with_name("changed.html")
    copy.write_text(page.read_text().replace("setUpCurves();", "setUpCurves() ;"))
    dump, console = browse(copy, tmp_path / "profile", "--dump-dom")
    assert "Content Security Policy" in console[0]
    assert 'class="point"' not in dump


@pytest.mark.parametrize("dark", [False, True])
def test_the_page_follows_the_readers_colour_scheme(page, tmp_path, dark):
    picture = tmp_path / "page.png"
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    browse(page, tmp_path / "profile", f"--screenshot={picture}", *options)
    pixels = cv2.imread(str(picture))
    assert (pixels[2, 2].max() < 50) == dark
    # Text and lines stand out.
    assert int(pixels.max()) - int(pixels.min()) > 150
