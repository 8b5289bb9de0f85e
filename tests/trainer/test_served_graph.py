from __future__ import annotations

import collections

import pytest
import tensorflow as tf

from tests.small_model import make_rows, to_example


@pytest.fixture(scope="module")
def operations(small_model):
    """The kinds of the operations that TensorFlow runs for a request, and how many there are of each."""
    options = tf.compat.v1.RunOptions(output_partition_graphs=True)
    metadata = tf.compat.v1.RunMetadata()
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(small_model))
        signature = loaded.signature_def["serving_default"]
        (examples,) = (tensor.name for tensor in signature.inputs.values())
        request = {examples: [to_example(row) for row in make_rows(2)]}
        session.run(signature.outputs["ctr"].name, request, options=options, run_metadata=metadata)
    return collections.Counter(node.op for graph in metadata.partition_graphs for node in graph.node)


def test_a_request_is_parsed_once_and_the_rows_are_gathered_once(operations):
    # By the one parser or the other; see trainer/parsing.py.
    assert operations["If"] + operations["StatelessIf"] == 1
    assert not {"ParseExampleV2", "ParseSequenceExampleV2", "Switch", "Merge"} & set(operations)
    assert operations["ResourceGatherNd"] == 1


def test_ids_of_one_kind_are_hashed_together(operations):
    # int64 ids, their second hash, and text.
    assert operations["Fingerprint"] == 3
    assert not operations["AsString"]
    assert not operations["StringToHashBucketFast"]


def test_nothing_of_the_training_is_left(operations):
    assert not {"PyFunc", "EagerPyFunc", "Assert", "RandomUniform"} & set(operations)
