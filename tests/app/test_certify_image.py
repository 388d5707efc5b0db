"""The page's logic, without a browser."""

import base64
import io
import json
import shutil

import numpy as np
import pytest
import streamlit as st
from PIL import Image, ImageDraw
from scipy.stats import norm
from streamlit.testing.v1 import AppTest

from app.figures.rounding import round_down, round_up
from app.figures.votes import votes
from app.widgets.attempt import plain
from app.widgets.certificates import MOST_BYTES, as_text
from backend.home import CHECKOUT, PRECOMPUTED, runs_root
from backend.images import DATA_URL
from backend.jobs.forget import forget
from backend.jobs.worker import work
from backend.run import Run
from backend.store import queries
from backend.store.publish import publish
from tests.app import page, press, words


@pytest.fixture
def app(published):
    app = AppTest.from_file(str(CHECKOUT / "app" / "views" / "certify_image.py"), default_timeout=90).run()
    app.select_slider(key="n").set_value(1_000)
    return app


def models(app, **wanted):
    """Run ids of the store with these columns and with weights, chosen in the page."""
    runs = queries.runs()
    runs = runs[[Run(folder).weights_file.exists() for folder in runs.folder]]
    for column, values in wanted.items():
        runs = runs[runs[column].isin(values)]
    ids = runs.run_id.to_list()
    app.multiselect(key="model").set_value(ids)
    return ids


def drawing():
    image = Image.new("L", (280, 280))
    ImageDraw.Draw(image).line([(70, 60), (210, 60), (130, 230)], fill=255, width=22, joint="curve")
    file = io.BytesIO()
    image.save(file, "PNG")
    return DATA_URL + base64.b64encode(file.getvalue()).decode()


def test_two_networks_side_by_side(app):
    ids = models(app, dataset=["mnist"], method=["gaussian"], sigma=[0.5, 1.0])
    app = press(app.run(), "Certify")
    certificates = app.session_state.certificates
    assert list(certificates) == ids
    shown = [m.value for m in app.metric if m.label == "Certified ℓ2 radius"]
    assert shown == [round_down(certificates[run_id]["radius"]) for run_id in ids]
    assert all(c["samples"] == 1_000 and c["run_id"] == run_id for run_id, c in certificates.items())
    tracks = app.session_state.tracks
    for run_id, track in tracks.items():
        assert track.samples == sorted(track.samples)
        assert (track.samples[-1], track.lower[-1]) == (1_000, certificates[run_id]["radius"])
    assert len({track.colour for track in tracks.values()}) == 2
    for run_id in reversed(ids):
        app.button_group(key="closer").set_value(run_id).run()
        assert not app.exception
        assert f"noisy copies at σ = {certificates[run_id]['sigma']:g}, always" in words(app)


def test_a_drawing_is_certified_and_attacked(app):
    app.session_state["drawn"] = drawing()
    app.button_group(key="way 4").set_value("Draw").run()
    app = press(app, "Certify")
    (certificate,) = app.session_state.certificates.values()
    assert certificate["class"] == "7"
    text = words(app)
    assert "8 noisy copies at σ = 0.25" in text
    assert "of 255 grey levels" in text
    app = press(app, "Attack it")
    (other,) = app.session_state.attacks.values()
    assert other.distance > certificate["radius"]
    bracket = (
        f"{round_down(certificate['radius'])} ≤ robust radius of the smoothed classifier ≤ {round_up(other.distance)}"
    )
    assert bracket in words(app)
    assert "both hold with probability at least 0.998" in words(app)


def test_a_contradiction_is_called_one(app):
    """An attack that comes nearer than the certificate allows: one of the two is wrong, and no bracket is claimed."""
    app = press(press(app, "Certify"), "Attack it")
    (run_id,) = app.session_state.attacks
    app.session_state.certificates[run_id]["radius"] = 9.0
    app.run()
    assert "One of the two is wrong, as happens with probability at most 0.002" in words(app)
    assert "≤ robust radius" not in words(app)


@pytest.mark.parametrize("url", ["data:text/html;base64,PGI+", DATA_URL + "AAAA", DATA_URL + "<script>", {"x": 1}])
def test_what_a_browser_makes_up_gets_a_sentence(app, url):
    app.session_state["drawn"] = url
    app.button_group(key="way 4").set_value("Draw").run()
    assert not app.exception
    assert app.error[0].value.endswith(".")
    assert next(b for b in app.button if b.label == "Certify").disabled


def test_only_networks_with_weights_are_offered(home):
    """A run whose weights were not brought along is in the store, and not in the list."""
    bare = Run(next(PRECOMPUTED.glob("mnist-lenet-gaussian-s0.5-*")))
    copied = Run.create(runs_root(), bare.spec)
    for file in bare.portable(weights=False):
        shutil.copy(file, copied.path)
    publish((runs_root(),))
    app = AppTest.from_file(str(CHECKOUT / "app" / "views" / "certify_image.py"), default_timeout=60).run()
    assert len(queries.runs()) == 1
    assert not app.exception
    assert "There is no trained network yet" in app.info[0].value


def test_a_certificate_is_verified_by_upload(app):
    app = press(app, "Certify")
    (certificate,) = app.session_state.certificates.values()
    content = json.dumps(certificate).encode()

    def verdict(content):
        app.file_uploader(key="check").set_value(("certificate.json", content, "application/json")).run()
        return words(press(app, "Verify"))

    assert "It holds up** (match)" in verdict(content)
    assert "**Refuted**: 1000 of 1000 votes" in verdict(json.dumps(certificate | {"radius": 3.0}).encode())
    assert "not a certificate, which is JSON" in verdict(b"hello").replace("\\", "")
    assert "not a certificate, which is JSON" in verdict(b"[" * 100_000).replace("\\", "")
    assert "not a certificate, which is JSON" in verdict(
        json.dumps(certificate | {"run_id": "\ud800"}).encode()
    ).replace("\\", "")
    assert "NaN is no number" in verdict(b'{"radius": NaN}').replace("\\", "")
    other = json.dumps(certificate | {"run_id": "someone-elses-run"}).encode()
    assert "(unchecked)" in verdict(other)
    hostile = json.dumps(certificate | {"run_id": "../../etc", "class": "<b>x</b>"}).encode()
    assert "<b>" not in verdict(hostile)


def test_words_of_a_visitor_stay_words():
    assert plain("<img src=x> [a](http://b) `c` $d$") == r"\<img src=x\> \[a\]\(http\://b\) \`c\` \$d\$"
    assert len(plain("a" * 1_000, 400)) == 400


def test_nothing_chosen_says_what_to_do(app):
    """And what was chosen otherwise is still there when a network is."""
    (model,) = app.multiselect(key="model").value
    other = app.button_group(key="sample_mnist").options[3]
    app.button_group(key="sample_mnist").set_value(other).run()
    app.multiselect(key="model").set_value([]).run()
    assert "Choose a model" in app.info[0].value
    assert next(b for b in app.button if b.label == "Certify").disabled
    app.multiselect(key="model").set_value([model]).run()
    assert app.button_group(key="sample_mnist").value.name.startswith(f"{other}-")
    assert not next(b for b in app.button if b.label == "Certify").disabled


def test_a_radius_that_is_none_gets_a_sentence(app):
    app.button_group(key="mode").set_value("at-radius").run()
    app.number_input(key="radius").set_value(-1.0).run()
    assert "radius must be from 1e-06 to 1000000, not -1.0" in app.error[0].value
    assert next(b for b in app.button if b.label == "Certify").disabled
    app.number_input(key="radius").set_value(0.5).run()
    assert not app.error
    assert not app.warning
    app.number_input(key="radius").set_value(2.0).run()
    most = 0.25 * norm.ppf((0.001 / 7) ** 0.001)  # 7 looks at up to 1 000 samples share alpha
    assert f"1,000 samples certify a radius of at most {round_down(most)} at σ = 0.25, even where all agree" in words(
        app
    )


def test_a_network_that_is_deleted_meanwhile_is_no_error(home, digits_spec):
    """In another tab the last network of the data set is deleted; the page goes on with what is left, and says so."""
    run = Run.create(runs_root(), digits_spec())
    work(run, "cpu")
    publish()
    app = page("certify_image", dataset="digits").run()
    assert app.multiselect[0].value == [run.run_id]
    forget([run])
    st.cache_data.clear()
    app.button[0].click().run()
    assert not app.exception
    assert app.multiselect[0].value[0].startswith("mnist-")


def test_a_network_whose_folder_went_says_so_in_every_mode(home, digits_spec):
    """By hand, or by another process, while the list of models is still the one before."""
    run = Run.create(runs_root(), digits_spec())
    work(run, "cpu")
    publish()
    app = page("certify_image", dataset="digits").run()
    run.path.rename(run.path.with_name("elsewhere"))
    app.segmented_control(key="mode").set_value("at-radius").run()
    assert not app.exception
    assert "is not a run folder: it has no spec.json" in app.error[0].value


def test_a_photos_certificate_fits_the_check(app):
    (certificate,) = press(app, "Certify").session_state.certificates.values()
    values = np.random.default_rng(0).integers(0, 256, 3 * 224 * 224).tolist()
    photo = certificate | {"image": certificate["image"] | {"values": values, "preprocessing": ['"values": []']}}
    text = as_text(photo)
    assert json.loads(text) == photo
    assert len(text) < MOST_BYTES / 2
    assert '"classes": [\n' in text  # a line a field


def test_a_link_to_a_network_that_is_not_here_says_so(published):
    app = page("certify_image", model="digits-<b>gone</b>").run()
    assert not app.exception
    assert "The link names digits\\-\\<b\\>gone" in app.warning[0].value


def test_the_name_of_a_class_is_shown_as_it_is():
    """A folder of images may be anybody's, and its classes are called what its folders are."""
    name = "z![x](http:&sol;&sol;evil.test&sol;p.png) $\\frac12$ :red[R] <b>"

    def show(name):
        import numpy as np

        from app.widgets.certificates import abstained, show_certificate
        from app.widgets.closer_look import show_bracket, show_copies
        from backend.certification.bracket import Other

        image = {"scale": 255, "values": [], "shape": [3, 32, 32]}
        certificate = {
            "class": name, "selected": name, "classes": ["other", name], "abstained": False, "radius": 0.5, "p_lower": 0.9, "alpha": 0.001,
            "sigma": 0.5, "mode": "fixed", "counts": [1, 99], "samples": 100, "n0": 10, "image": image,
        }  # fmt: skip
        show_certificate(certificate)
        abstained(certificate)
        pixels = np.zeros((3, 32, 32), np.uint8)
        show_copies(pixels[None], [name], certificate)
        import torch

        from backend.images import Seen

        other = Other(torch.ones(3, 32, 32, dtype=torch.uint8), 0.7, 0, 90, 10, 100, 0.001, 4)
        show_bracket(None, Seen(pixels, ()), certificate, other)

    app = AppTest.from_function(show, args=(name,), default_timeout=60).run()
    assert not app.exception
    kinds = ("markdown", "caption", "warning", "metric")
    said = [e.value for kind in kinds for e in getattr(app, kind)]
    said += [image.caption for one in app.get("imgs") for image in one.proto.imgs]
    assert sum(plain(name) in text for text in said) >= 6
    assert not any(name in text for text in said)
    (chart,) = [json.loads(c.proto.spec) for c in app.get("plotly_chart")][:1]
    assert "<b>" not in "".join(chart["layout"]["xaxis"]["ticktext"] + chart["data"][0]["hovertext"])


def test_a_thousand_classes_are_not_all_named_below_their_bars():
    """The browser would draw for half a minute; the one that was selected is among those."""
    figure = votes([1] * 1000, [f"class {c}" for c in range(1000)], 501, 0.6)
    assert 501 in figure.layout.xaxis.tickvals
    assert len(figure.layout.xaxis.tickvals) <= 14
    assert list(votes([1, 2], ["a", "b" * 30], 0, 0.6).layout.xaxis.ticktext) == ["a", "b" * 23 + "…"]
