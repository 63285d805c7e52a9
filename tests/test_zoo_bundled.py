"""Networks that come with the package, and what `predict` does without a MODEL."""

import pytest

from commands import run
from image_files import encode, photo
from networks import random_network, tiny_spec
from squeezenet import zoo
from squeezenet.fileformat import SqzFile, read_sqz, write_sqz
from squeezenet.labels import Labels
from squeezenet.preprocess import Preprocessing


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A package with one network."""
    spec = tiny_spec(input_size=32)
    contents = SqzFile(
        network=random_network(spec),
        labels=Labels(("ant", "bee", "cat", "dog", "eel")),
        preprocessing=Preprocessing(crop_size=32, resize_size=32),
    )
    write_sqz(tmp_path / "cifar10.sqz", contents)
    monkeypatch.setattr(zoo, "bundled_models", lambda: {"cifar10": tmp_path / "cifar10.sqz"})
    (tmp_path / "a.png").write_bytes(encode(photo()))
    (tmp_path / "b.jpg").write_bytes(encode(photo(), "JPEG"))
    return tmp_path


def test_every_network_of_the_package_is_whole_and_small():
    paths = zoo.bundled_models().values()
    assert sum(path.stat().st_size for path in paths) <= 1_000_000
    assert all(read_sqz(path).labels is not None for path in paths)


def test_predict_without_a_model_names_the_one_it_takes(own):
    done = run("predict", own / "a.png")
    assert done.exit_code == 0, done.output
    assert done.stderr == "model: cifar10, from this package; use --model for another\n"
    assert done.stdout.count(" %  ") == 5


@pytest.mark.parametrize(
    "arguments", [("cifar10", "a.png", "b.jpg"), ("-m", "cifar10", "a.png", "b.jpg"), ("a.png", "b.jpg")]
)
def test_model_may_be_an_option_an_argument_or_nothing(own, arguments, monkeypatch):
    monkeypatch.chdir(own)
    done = run("predict", *arguments)
    assert done.exit_code == 0, done.output
    assert done.stdout.count("a.png") == done.stdout.count("b.jpg") == 1


def test_folder_alone_is_a_folder_of_images(own):
    (own / "photos").mkdir()
    (own / "a.png").rename(own / "photos/a.png")
    assert run("predict", own / "photos").stdout.count("a.png") == 1


def test_model_alone_lacks_an_image(own):
    assert "Missing argument 'IMAGE...'" in run("predict", own / "cifar10.sqz").stderr
    assert "Missing argument 'IMAGE...'" in run("predict", "-m", "cifar10").stderr


def test_package_without_a_network_says_what_to_do(own, monkeypatch):
    monkeypatch.setattr(zoo, "bundled_models", dict)
    done = run("predict", own / "a.png")
    assert done.exit_code == 2
    assert "name a file, or --model imagenet" in done.stderr


def test_imagenet_is_taken_from_the_cache(own, monkeypatch):
    monkeypatch.setenv("SQUEEZENET_HOME", str(own))
    (own / "cifar10.sqz").rename(zoo.imagenet_path())
    monkeypatch.chdir(own)
    assert zoo.find_model("imagenet") == zoo.Found("imagenet", zoo.imagenet_path(), "imagenet")
    assert run("predict", "-m", "imagenet", "a.png").exit_code == 0


def test_imagenet_is_compressed_once(own, monkeypatch):
    from squeezenet.labels import imagenet_labels
    from squeezenet.models import SqueezeNet
    from squeezenet.preprocess import Preprocessing
    from squeezenet.progress import SilentReporter
    from squeezenet.quantization import published

    calls = []

    def create_model(name, *, pretrained):
        calls.append(name)
        model = SqueezeNet(tiny_spec(input_size=16, num_classes=1000))
        model.labels, model.preprocessing = imagenet_labels(), Preprocessing(crop_size=16, resize_size=16)
        return model

    monkeypatch.setenv("SQUEEZENET_HOME", str(own / "cache"))
    monkeypatch.setattr(published, "create_model", create_model)
    first = published.imagenet_file(SilentReporter())
    assert published.imagenet_file(SilentReporter()) == first
    assert calls == ["squeezenet1_1"]
    assert read_sqz(first).labels == imagenet_labels()


def test_every_verb_that_reads_a_network_knows_the_name(own):
    assert run("info", "cifar10").exit_code == 0
    assert run("bench", "cifar10", "--seconds", "0.1", "--json").exit_code == 0
    assert run("export", "cifar10", "-o", own / "net.safetensors").exit_code == 0
