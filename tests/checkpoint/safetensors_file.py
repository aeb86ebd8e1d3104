"""Reads or writes a checkpoint with Python's safetensors, by the numbers of shard.c.

safetensors_file.py check|write FILE hidden_size ffn_hidden_size gated bias singleton dtype layers
"""
import sys

import numpy
import safetensors
import safetensors.numpy

WORDS = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}


def numbers(parameter, layer, half, rows, columns, dtype):
    """The bits of a whole parameter, or of its gate (half 0) or up (half 1)."""
    row, column = numpy.ogrid[0:rows, 0:columns]
    place = (row * 8191 + column).astype(numpy.uint32)
    which = numpy.uint32((parameter * 64 + layer * 8 + half) * 40503)
    bits = place * numpy.uint32(2654435761) + which
    bits = (bits ^ (bits >> numpy.uint32(15))) & numpy.uint32(0x7FFFFFFF)
    return bits if dtype == "fp32" else (bits >> numpy.uint32(16)).astype(numpy.uint16)


def tensors(hidden, ffn, gated, bias, singleton, dtype, layers):
    """Of each key the bits of the stored tensor."""
    shapes = [("linear_fc1.weight", ffn, hidden), ("linear_fc1.bias", ffn, 1),
              ("linear_fc2.weight", hidden, ffn), ("linear_fc2.bias", hidden, 1)]
    found = {}
    for parameter, (name, rows, columns) in enumerate(shapes):
        if parameter % 2 and not bias:
            continue
        halves = []
        for half in range(2 if gated and parameter < 2 else 1):
            each = [numbers(parameter, layer, half, rows, columns, dtype) for layer in range(layers or 1)]
            whole = numpy.stack(each)
            shape = ((layers,) if layers else ()) + ((rows,) if parameter % 2 else (rows, columns))
            halves.append(whole.reshape(shape))
        key = "decoder.layers.mlp." + name
        if len(halves) == 2 and singleton:
            found[key + "_w"], found[key + "_v"] = halves
        else:
            found[key] = numpy.concatenate(halves, axis=1 if layers else 0)
    return found


def check(path, wanted, dtype):
    with open(path, "rb") as file:
        raw = dict(safetensors.deserialize(file.read()))
    assert raw.keys() == wanted.keys(), (sorted(raw), sorted(wanted))
    for key, bits in wanted.items():
        assert raw[key]["dtype"] == WORDS[dtype], (key, raw[key]["dtype"])
        assert tuple(raw[key]["shape"]) == bits.shape, (key, raw[key]["shape"], bits.shape)
        assert bytes(raw[key]["data"]) == bits.tobytes(), key
    if dtype != "bf16":
        with safetensors.safe_open(path, framework="numpy") as file:
            for key, bits in wanted.items():
                assert file.get_tensor(key).tobytes() == bits.tobytes(), key


def write(path, wanted, dtype):
    if dtype == "bf16":  # numpy has no such type
        specs = {key: safetensors.TensorSpec(dtype="bfloat16", shape=bits.shape, data_ptr=bits.ctypes.data,
                                             data_len=bits.nbytes) for key, bits in wanted.items()}
        safetensors.serialize_file(specs, path, metadata={"format": "pt"})
    else:
        values = {key: bits.view(numpy.float32 if dtype == "fp32" else numpy.float16)
                  for key, bits in wanted.items()}
        safetensors.numpy.save_file(values, path, metadata={"format": "pt"})


def main():
    what, path, hidden, ffn, gated, bias, singleton, dtype, layers = sys.argv[1:]
    wanted = tensors(int(hidden), int(ffn), int(gated), int(bias), int(singleton), dtype, int(layers))
    (check if what == "check" else write)(path, wanted, dtype)


main()
