#!/usr/bin/env python3
"""dispatch and combine from Python, by ctypes alone, for a framework with its own router and experts.

  topomoe plan --cluster C --model M -o plan.json
  torchrun --nproc-per-node 4 dispatch_ctypes.py plan.json        (or: launch.py 4 python3 dispatch_ctypes.py plan.json)

Ranks are plain processes, connected by TCP as RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT say. Under torchrun, which
keeps its own store at MASTER_PORT, set TOPOMOE_MASTER_PORT too. The router here is a formula and expert e multiplies
by e + 1, so that everything that arrives can be checked. TOPOMOE_LIBRARY names libtopomoe.so where the loader does not
find it.
"""
import os
import sys
from array import array
from ctypes import (CDLL, POINTER, Structure, byref, c_char_p, c_double, c_float, c_int32, c_int64, c_size_t, c_uint32,
                    c_void_p, cast, sizeof)

ABI_VERSION = 1
lib = CDLL(os.environ.get("TOPOMOE_LIBRARY", "libtopomoe.so.1"))
lib.topomoe_last_error.restype = c_char_p


class Config(Structure):
    """A struct of topomoe.h: begins with its size and version; what it leaves out at its end has its defaults."""

    def __init__(self, **fields):
        super().__init__(sizeof(type(self)), ABI_VERSION, **fields)


class PlanInfo(Config):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("kinds", c_int32), ("world", c_int32), ("tp", c_int32),
                ("ep", c_int32), ("etp", c_int32), ("gpus_per_node", c_int32), ("sequence_parallel", c_int32),
                ("experts", c_int32), ("top_k", c_int32), ("renormalize", c_int32), ("hidden", c_int64),
                ("ffn", c_int64), ("dtype", c_int32), ("tokens_per_tp_group", c_double)]


class LayerConfig(Config):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("kind", c_int32), ("hidden", c_int64), ("ffn", c_int64),
                ("dtype", c_int32), ("deadline_ms", c_int32), ("accept_unlike", c_int32)]


class Batch(Config):
    _fields_ = [("size", c_size_t), ("version", c_uint32), ("experts", c_int32), ("rows", POINTER(c_int64)),
                ("inputs", c_void_p), ("outputs", c_void_p)]


def call(name, *arguments):
    if getattr(lib, "topomoe_" + name)(*arguments) != 0:
        raise RuntimeError(lib.topomoe_last_error().decode())


def make(name, *arguments):
    made = c_void_p()
    call(name, *arguments, byref(made))
    return made


def address(values):
    return c_void_p(values.buffer_info()[0])


def experts_compute(dispatched, factor_of):
    """outputs = factor * inputs, one local expert after another, in each piece of the schedule."""
    count = c_int32()
    call("batches", dispatched, byref(count))
    for i in range(count.value):
        batch = Batch()
        call("get_batch", dispatched, i, byref(batch))
        inputs, outputs = cast(batch.inputs, POINTER(c_float)), cast(batch.outputs, POINTER(c_float))
        at = 0
        for e in range(batch.experts):
            for _ in range(batch.rows[e] * HIDDEN):
                outputs[at] = factor_of(e) * inputs[at]
                at += 1


def check(what, actual, expected):
    for i, (a, e) in enumerate(zip(actual, expected)):
        if abs(a - e) > 1e-5 * max(1, abs(e)):
            raise RuntimeError(f"{what}[{i}] is {a}, not {e}")


HIDDEN = 8
plan = make("plan_read_file", sys.argv[1].encode())
info = PlanInfo()
call("plan_get_info", plan, 0, byref(info))
ranks = make("tcp_communicator", None)  # None: who and where we are is in the environment
rank = c_int32()
call("communicator_rank", ranks, byref(rank), None)
device = make("device_create", None)  # None: the CPU
config = LayerConfig(hidden=HIDDEN, dtype=0)  # float32
dispatcher = make("dispatcher_create", plan, ranks, device, byref(config))

# Ranks of a TP group hold the same tokens unless the layout is sequence parallel.
seed = rank.value if info.sequence_parallel else rank.value // info.tp
rows, k = 3 + seed, info.top_k
tokens = array("f", ((7 * seed + 3 * i) % 11 - 5 for i in range(rows * HIDDEN)))
ids = array("i", ((5 * seed + 3 * t + s) % info.experts for t in range(rows) for s in range(k)))
weights = array("f", (1 / (1 + s + t % 2) for t in range(rows) for s in range(k)))
output = array("f", bytes(4 * rows * HIDDEN))

# With sharded experts (ETP > 1) each shard gives a partial sum.
first = info.experts // info.ep * ((rank.value // info.etp) % info.ep)
dispatched = make("dispatch", dispatcher, address(tokens), c_int64(rows), address(ids), address(weights))
experts_compute(dispatched, lambda e: (first + e + 1) / info.etp)
call("combine", dispatched, address(output))


def scale(t):  # what became of token t
    return sum(weights[t * k + s] * (ids[t * k + s] + 1) for s in range(k))


check("output", output, (scale(i // HIDDEN) * x for i, x in enumerate(tokens)))

# Backward: the gradient of the output is 1 everywhere.
ones = array("f", [1.0] * (rows * HIDDEN))
token_gradients, weight_gradients = array("f", bytes(4 * rows * HIDDEN)), array("f", bytes(4 * rows * k))
call("combine_backward", dispatched, address(ones))
experts_compute(dispatched, lambda e: (first + e + 1) / info.etp)
call("dispatch_backward", dispatched, address(token_gradients), address(weight_gradients))
check("token gradients", token_gradients, (scale(i // HIDDEN) for i in range(rows * HIDDEN)))
check("weight gradients", weight_gradients,
      ((ids[i] + 1) * sum(tokens[i // k * HIDDEN:(i // k + 1) * HIDDEN]) for i in range(rows * k)))

for kind, thing in (("dispatched", dispatched), ("dispatcher", dispatcher), ("device", device), ("communicator", ranks),
                    ("plan", plan)):
    getattr(lib, f"topomoe_{kind}_free")(thing)
sys.stdout.write(f"rank {rank.value}: {rows} tokens went to their experts and came back, and so did their gradients\n")
