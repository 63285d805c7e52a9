import pytest

from squeezenet.errors import DataError
from squeezenet.labels import Labels, imagenet_labels

FISH = Labels(("tench, Tinca tinca", "goldfish, Carassius auratus", "great white shark"), ("n01", "n02", "n03"))


def test_imagenet_has_a_thousand_classes_in_the_published_order():
    labels = imagenet_labels()
    assert len(labels) == len(set(labels.ids)) == 1000
    assert (labels.ids[999], labels.names[999]) == ("n15075141", "toilet tissue, toilet paper, bathroom tissue")
    assert labels.names[207] == "golden retriever"
    assert list(labels.ids) == sorted(labels.ids)


@pytest.mark.parametrize(
    ("folder", "position"),
    [
        ("n02", 1), ("N02", 1), ("tench, Tinca tinca", 0), ("tench", 0), ("Tinca tinca", 0), ("Tinca_tinca", 0),
        ("GOLDFISH", 1), ("great_white_shark", 2), ("great  white shark ", 2), ("\uff4e\uff10\uff12", 1),
    ],
)  # fmt: skip
def test_folder_is_matched_by_id_name_or_synonym(folder, position):
    assert FISH.match([folder]) == {folder: position}


def test_order_of_folders_does_not_matter():
    assert FISH.match(["n03", "n01"]) == {"n03": 2, "n01": 0}
    assert FISH.match(["n01", "n03"]) == {"n03": 2, "n01": 0}


def test_some_classes_may_have_no_folder():
    assert FISH.match([]) == {}


@pytest.mark.parametrize("folder", ["salmon", "0", "n0", "tenc", "", "Tinca"])
def test_folder_of_no_class_is_refused_with_an_example(folder):
    with pytest.raises(DataError) as error:
        FISH.match([folder])
    assert str(error.value) == (
        f"class folder {folder!r} matches no class of the model (such as 'tench, Tinca tinca', id 'n01'):"
        " name folders after the model's class ids or names"
    )


def test_folder_of_two_classes_is_refused():
    with pytest.raises(DataError, match="class folder 'crane' matches 2 classes of the model"):
        imagenet_labels().match(["crane"])


def test_full_name_goes_before_a_synonym():
    labels = Labels(("bass", "sea bass, bass"))
    assert labels.match(["bass", "sea bass"]) == {"bass": 0, "sea bass": 1}


def test_id_goes_before_a_name():
    assert Labels(("b", "a"), ("a", "b")).match(["a", "b"]) == {"a": 0, "b": 1}


def test_labels_without_ids_say_so_in_messages():
    with pytest.raises(DataError, match=r"such as 'cat'\)"):
        Labels(("cat",)).match(["dog"])
    with pytest.raises(DataError, match=r"such as none\)"):
        Labels(()).match(["dog"])


def test_number_of_ids_must_fit():
    with pytest.raises(DataError, match="expected one id for each of 2 class names, got 1"):
        Labels(("a", "b"), ("x",))


@pytest.mark.parametrize("ids", [("x", "x"), ("X", "x"), ("a b", "a_b")])
def test_two_classes_cannot_share_an_id(ids):
    with pytest.raises(DataError, match="expected a different id for each class"):
        Labels(("a", "b"), ids)


@pytest.mark.parametrize("labels", [FISH, Labels(("a", "b")), imagenet_labels()])
def test_labels_go_through_plain_data(labels):
    assert Labels.from_dict(labels.to_dict()) == labels


def test_only_the_imagenet_classes_themselves_are_stored_by_name():
    labels = imagenet_labels()
    assert labels.to_dict() == {"set": "imagenet-1k"}
    assert "names" in Labels(labels.names).to_dict()
    assert "names" in Labels((*labels.names[:-1], "paper"), labels.ids).to_dict()


@pytest.mark.parametrize(
    "data",
    [
        None, [], "set", "names", 3, {}, {"ids": ["a"]}, {"names": None}, {"names": "ab"}, {"names": ["a", 1]},
        {"names": ["a"], "ids": "x"}, {"names": ["a"], "ids": [1]}, {"names": ["a"], "ids": None},
        {"names": ["a"], "extra": 1}, {"set": "cifar-10"}, {"set": None}, {"set": "imagenet-1k", "names": ["a"]},
    ],
)  # fmt: skip
def test_data_that_are_no_labels_are_refused(data):
    with pytest.raises(DataError, match="expected"):
        Labels.from_dict(data)
