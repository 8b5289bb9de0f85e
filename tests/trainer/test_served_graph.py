from __future__ import annotations

import collections

import pytest
import tensorflow as tf

from tests.small_model import make_rows, to_example
from trainer.signatures import SMALL_BATCH


@pytest.fixture(scope="module")
def run(small_model):
    """Returns the kinds of the operations that TensorFlow runs for a request, and how many there are of each."""
    options = tf.compat.v1.RunOptions(trace_level=tf.compat.v1.RunOptions.FULL_TRACE, output_partition_graphs=True)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(small_model))
        signature = loaded.signature_def["serving_default"]
        (examples,) = (tensor.name for tensor in signature.inputs.values())

        def count(batch_size):
            metadata = tf.compat.v1.RunMetadata()
            request = {examples: [to_example(row) for row in make_rows(batch_size)]}
            session.run(signature.outputs["ctr"].name, request, options=options, run_metadata=metadata)
            kinds = {node.name: node.op for graph in metadata.partition_graphs for node in graph.node}
            stats = [node for device in metadata.step_stats.dev_stats for node in device.node_stats]
            return collections.Counter(kinds[node.node_name] for node in stats if node.node_name in kinds)

        yield count


@pytest.fixture(scope="module")
def operations(run):
    return run(2)


@pytest.mark.parametrize("batch_size", [1, SMALL_BATCH, SMALL_BATCH + 1])
def test_a_request_is_parsed_once_and_the_rows_are_gathered_once(run, batch_size):
    operations = run(batch_size)
    is_small = batch_size <= SMALL_BATCH
    assert (operations["ParseSequenceExampleV2"], operations["ParseExampleV2"]) == (is_small, not is_small)
    assert operations["ResourceGatherNd"] == 1


def test_ids_of_one_kind_are_hashed_together(operations):
    # int64 ids, their second hash, and text.
    assert operations["Fingerprint"] == 3
    assert not operations["AsString"]
    assert not operations["StringToHashBucketFast"]


def test_nothing_of_the_training_is_left(operations):
    assert not {"PyFunc", "EagerPyFunc", "Assert", "RandomUniform"} & set(operations)
