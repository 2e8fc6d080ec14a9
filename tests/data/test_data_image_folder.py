import numpy as np
import pytest

from distbelief.data.image_folder import ImageFolder
from distbelief.errors import UserError

Image = pytest.importorskip("PIL.Image")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("cat", 3), ("ant", 2)):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 10, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"{i}.png")
    (tmp_path / "pictures" / "cat" / "notes.txt").write_text("not a picture")
    (tmp_path / "pictures" / "README").write_text("not a class")
    return tmp_path / "pictures"


def test_classes_and_pictures_are_in_the_order_of_their_names(folder):
    data = ImageFolder(folder, (8, 10, 3))
    assert data.classes == ["ant", "cat"] and data.labels.tolist() == [0, 0, 1, 1, 1]
    assert data.examples == 5 and data.features == 240


def test_a_picture_of_the_right_size_is_read_as_it_is(folder):
    source_nf, places = ImageFolder(folder, (8, 10, 3)).reader().read(np.array([4, 0]))
    for place, name in zip(places, ("cat/2.png", "ant/0.png"), strict=True):
        np.testing.assert_array_equal(source_nf[place].reshape(8, 10, 3), np.asarray(Image.open(folder / name)))


def test_some_features_of_a_picture(folder):
    data, rows = ImageFolder(folder, (8, 10, 3)), np.array([4, 0])
    whole, _ = data.reader().read(rows)
    part, _ = data.reader((30, 100)).read(rows)
    np.testing.assert_array_equal(part, whole[:, 30:100])


def test_other_sizes_are_scaled_and_cut_about_the_middle(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:, 2:6] = 200  # a bright middle, which is what a square keeps
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "wide.png")
    data = ImageFolder(tmp_path, (4, 4, 1))
    np.testing.assert_array_equal(data.reader().read(np.array([0]))[0], np.full((1, 16), 200))


def test_reading_ahead_changes_nothing(folder):
    data = ImageFolder(folder, (6, 6, 3))
    ahead, plain = data.reader(), data.reader()
    for rows in ([0, 1], [3, 2, 3], [4]):
        rows = np.array(rows)
        ahead.will_need(rows)
        np.testing.assert_array_equal(ahead.read(rows)[0], plain.read(rows)[0])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: (folder / "cat" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\nrest"), "1.png: not a picture"),
        (
            lambda folder: (folder / "cat" / "1.png").write_bytes((folder / "cat" / "0.png").read_bytes()[:99]),
            "1.png: not a picture",
        ),
        (lambda folder: (folder / "dog").mkdir(), "dog: no pictures"),
        (lambda folder: folder.rename(folder.parent / "elsewhere"), "pictures: cannot be read"),
    ],
)
def test_what_cannot_be_read_is_one_line(folder, spoil, words):
    spoil(folder)
    with pytest.raises(UserError) as error:
        data = ImageFolder(folder, (8, 10, 3))
        data.reader().read(np.arange(data.examples))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_no_classes_and_strange_channels_are_refused(folder):
    with pytest.raises(UserError, match="has no folders in it, expected one for each class"):
        ImageFolder(folder / "cat", (8, 10, 3))
    with pytest.raises(UserError, match="pictures of 4 channels, expected 1 .grey. or 3"):
        ImageFolder(folder, (8, 10, 4))
