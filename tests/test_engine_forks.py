"""Classifiers and engines in other processes: forked, pickled, copied."""

import copy
import multiprocessing
import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

from networks import random_network, random_pixels, tiny_spec
from squeezenet import Classifier
from squeezenet.engine import NativeEngine, ReferenceEngine, native_kernels
from squeezenet.fileformat import SqzFile
from squeezenet.labels import Labels

SECONDS = 30
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
needs_native = pytest.mark.skipif(not native_kernels(), reason="needs the native engine")
# Python 3.12 warns of any fork in a process with threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")


@pytest.fixture
def network():
    return random_network(tiny_spec(bypass="complex", input_size=24))


@pytest.fixture
def classifier(network):
    return Classifier(SqzFile(network=network, labels=Labels(tuple("abcde"))), threads=3)


def exit_code_of_child(work):
    """Exit code of a forked process that calls `work` and ends as Python does; fails if it does not end."""
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        pytest.fail("the child hangs")
    return process.exitcode


@needs_fork
@needs_native
@pytest.mark.parametrize("used_before", [False, True])
def test_a_forked_process_predicts_what_its_parent_predicts(network, classifier, used_before):
    pixels = random_pixels(network.spec, 5)
    expected = ReferenceEngine(network).logits(pixels)
    if used_before:
        classifier.logits(pixels)

    def child():
        np.testing.assert_array_equal(classifier.logits(pixels), expected)
        assert exit_code_of_child(lambda: np.testing.assert_array_equal(classifier.logits(pixels), expected)) == 0

    assert exit_code_of_child(child) == 0
    np.testing.assert_array_equal(classifier.logits(pixels), expected)


@needs_fork
@needs_native
@pytest.mark.parametrize("work", ["nothing", "del", "sys.exit"])
def test_a_forked_process_ends(network, work):
    engine = NativeEngine(network, threads=2)
    engine.logits(random_pixels(network.spec, 4))
    pid = os.fork()
    if not pid:
        if work == "del":
            del engine
            os._exit(0)
        try:  # Python's own end, with the finalisers that wait for threads
            import atexit

            atexit._run_exitfuncs()
        finally:
            os._exit(0)
    end = time.monotonic() + SECONDS
    while os.waitpid(pid, os.WNOHANG) == (0, 0):
        if time.monotonic() > end:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            pytest.fail("the child hangs")
        time.sleep(0.01)


@needs_fork
@needs_native
def test_forks_while_another_thread_predicts(network, classifier):
    """The engine's lock may be held, and its threads be at work, in the moment of the fork."""
    pixels, stop = random_pixels(network.spec, 8), threading.Event()
    expected = ReferenceEngine(network).logits(pixels)

    def predict():
        while not stop.is_set():
            classifier.logits(pixels)

    thread = threading.Thread(target=predict)
    thread.start()
    try:
        for _ in range(20):
            assert exit_code_of_child(lambda: np.testing.assert_array_equal(classifier.logits(pixels), expected)) == 0
    finally:
        stop.set()
        thread.join()


@needs_fork
@needs_native
def test_a_pool_of_forked_workers_predicts(network, classifier):
    pixels = random_pixels(network.spec, 6)
    expected = classifier.logits(pixels)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        rows = pool.map_async(classifier.logits, [pixels[index : index + 1] for index in range(6)]).get(SECONDS)
    np.testing.assert_array_equal(np.concatenate(rows), expected)


@pytest.mark.parametrize("method", ["deepcopy", "copy", *range(2, pickle.HIGHEST_PROTOCOL + 1)])
@pytest.mark.parametrize("engine", ["auto", "reference"])
def test_copies_and_pickles_of_a_classifier_are_the_same_classifier(network, method, engine):
    class_names = tuple("abcde")
    classifier = Classifier(SqzFile(network=network, labels=Labels(class_names)), engine=engine, threads=2)
    classifier.unknown_below = 0.25
    how = {"deepcopy": copy.deepcopy, "copy": copy.copy}
    other = how[method](classifier) if method in how else pickle.loads(pickle.dumps(classifier, method))
    pixels = random_pixels(network.spec, 3)
    np.testing.assert_array_equal(other.logits(pixels), classifier.logits(pixels))
    assert type(other.engine) is type(classifier.engine)
    assert getattr(other.engine, "threads", None) == getattr(classifier.engine, "threads", None)
    assert (other.class_names, other.unknown_below) == (class_names, 0.25)
    assert other.engine is not classifier.engine


@needs_native
def test_copies_and_pickles_of_an_engine_keep_what_was_asked_for(network):
    for kernels in (None, native_kernels()[-1]):
        engine = NativeEngine(network, threads=3, kernels=kernels)
        for other in (copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
            assert (other.threads, other.kernels) == (3, engine.kernels)
            np.testing.assert_array_equal(
                other.logits(random_pixels(network.spec, 3)), engine.logits(random_pixels(network.spec, 3))
            )


def test_joblib_and_spawned_workers_get_a_classifier(network, classifier):
    joblib = pytest.importorskip("joblib")
    pixels = random_pixels(network.spec, 4)
    rows = joblib.Parallel(n_jobs=2)(joblib.delayed(classifier.logits)(pixels[i : i + 1]) for i in range(4))
    np.testing.assert_array_equal(np.concatenate(rows), classifier.logits(pixels))


def test_workers_of_a_data_loader_predict(network, classifier):
    torch = pytest.importorskip("torch")

    class Images(torch.utils.data.Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, index):
            return classifier.logits(pixels[index : index + 1])[0]

    pixels = random_pixels(network.spec, 4)
    expected = classifier.logits(pixels)
    loader = torch.utils.data.DataLoader(Images(), batch_size=4, num_workers=2, timeout=SECONDS)
    np.testing.assert_array_equal(next(iter(loader)).numpy(), expected)
