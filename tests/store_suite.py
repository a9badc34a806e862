"""The contract of :class:`shardstream.storage.Store`, for any place: subclass, give ``store``, done."""

import pickle
import threading

import pytest

from shardstream.errors import ConfigError
from shardstream.storage import Fetcher, Store


class StoreSuite:
    """Subclasses give a fixture ``store``: a :class:`Store` on a fresh, empty place."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError

    def test_put_bytes_reads_back(self, store):
        """What was put is read back whole."""
        store.put_bytes("a/b.bin", b"hello")
        assert store.read("a/b.bin") == b"hello"

    def test_put_bytes_replaces(self, store):
        """A second put replaces the first."""
        store.put_bytes("a", b"first, longer")
        store.put_bytes("a", b"second")
        assert store.read("a") == b"second"

    @pytest.mark.parametrize("begin, end, expected", [(0, 3, b"012"), (4, 6, b"45"), (4, None, b"456789"),
                                                      (8, 100, b"89"), (10, 12, b""), (50, 60, b"")])  # fmt: skip
    def test_read_range(self, store, begin, end, expected):
        """A range is exact, cut off at the object's end, and empty beyond it."""
        store.put_bytes("digits", b"0123456789")
        assert bytes(store.read("digits", begin, end)) == expected

    def test_empty_object(self, store):
        """An empty object is there, and reads as no bytes."""
        store.put_bytes("empty", b"")
        assert store.read("empty") == b""
        assert store.size("empty") == 0

    def test_absent_is_file_not_found(self, store):
        """Reading or sizing an absent object is FileNotFoundError."""
        with pytest.raises(FileNotFoundError):
            store.read("none")
        with pytest.raises(FileNotFoundError):
            store.size("none")

    def test_read_many_keeps_order_and_tells_absent(self, store):
        """read_many answers in the order asked, None for what is absent, cut at max_nbytes."""
        for number in range(5):
            store.put_bytes(f"n/{number}", b"x" * number + b"y")
        names = ["n/4", "n/none", "n/0", "n/2"]
        assert store.read_many(names) == [b"xxxxy", None, b"y", b"xxy"]
        assert store.read_many(names, 2) == [b"xx", None, b"y", b"xx"]

    def test_put_if_absent_creates_once(self, store):
        """The first creates and says so; the second changes nothing and says so."""
        assert store.put_if_absent("once", b"mine") is True
        assert store.put_if_absent("once", b"yours") is False
        assert store.read("once") == b"mine"

    def test_put_if_absent_race_has_one_winner(self, store):
        """Of eight threads that create one name, exactly one is told that it did, and its bytes stand."""
        won, barrier = [], threading.Barrier(8)
        store.read_many(["warm"])

        def create(number: int) -> None:
            barrier.wait()
            if store.put_if_absent("race", b"%d" % number):
                won.append(number)

        threads = [threading.Thread(target=create, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert store.read("race") == b"%d" % won[0]

    def test_put_file_arrives_whole(self, store, tmp_path):
        """A finished local file arrives with all its bytes."""
        data = bytes(range(256)) * 4096
        (tmp_path / "finished").write_bytes(data)
        store.put_file("s.tar", tmp_path / "finished")
        assert store.read("s.tar") == data
        assert store.size("s.tar") == len(data)

    def test_list_is_one_level(self, store):
        """list names the objects of one folder with their sizes, and nothing from below."""
        store.put_bytes("b.tar", b"22")
        store.put_bytes("a.tar", b"1")
        store.put_bytes("_log/x.json", b"333")
        assert store.list() == [("a.tar", 1), ("b.tar", 2)]
        assert store.list("_log") == [("x.json", 3)]
        assert store.list("nothing") == []

    def test_list_sees_what_was_just_put(self, store):
        """No listing is remembered."""
        assert store.list() == []
        store.put_bytes("a", b"1")
        assert store.list() == [("a", 1)]

    def test_delete(self, store):
        """Deleted objects are absent; deleting an absent one is fine."""
        store.put_bytes("a", b"1")
        store.put_bytes("b", b"1")
        store.delete(["a", "none"])
        assert store.list() == [("b", 1)]

    @pytest.mark.parametrize("name", ["", "/etc/passwd", "../up", "a/../../up", "nul\0"])
    def test_names_stay_inside(self, store, name):
        """A name that would leave the place is refused."""
        with pytest.raises(ConfigError):
            store.read(name)

    def test_pickles(self, store):
        """A pickled store reads the same place."""
        store.put_bytes("a", b"1")
        again = pickle.loads(pickle.dumps(store))
        assert again.url == store.url and again.is_local == store.is_local

    def test_fetcher_reads_exact_ranges(self, store):
        """A Fetcher reads the store's objects by URL."""
        data = bytes(range(256)) * 9000
        store.put_bytes("s.tar", data)
        fetcher = Fetcher(store.storage_options)
        part = fetcher.read(store.join("s.tar"), 1000, 2_200_000)
        assert part.dtype == "uint8" and part.tobytes() == data[1000:2_200_000]
        assert fetcher.size(store.join("s.tar")) == len(data)
        assert fetcher.read(store.join("s.tar"), 5, 5).shape == (0,)
