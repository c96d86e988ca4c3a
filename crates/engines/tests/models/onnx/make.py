"""Makes the models in this folder: python make.py (with the `onnx` package of tests/clients).

`external.onnx` refers to `weights.bin`, which the tests write.
"""

import pathlib

import onnx
from onnx import TensorProto as T
from onnx import helper as h

HERE = pathlib.Path(__file__).parent


def tensor(name, dtype=T.FLOAT, shape=("n",)):
    return h.make_tensor_value_info(name, dtype, shape)


def constant(name, value, dtype=T.FLOAT, dims=()):
    return h.make_tensor(name, dtype, dims, value if isinstance(value, list) else [value])


def write(name, nodes, inputs, outputs, constants=(), check=True, ir=8, functions=()):
    graph = h.make_graph(nodes, name, inputs, outputs, list(constants))
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=ir,
                         functions=list(functions), producer_name="make.py")
    if check:
        onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString())


def half_plus_two(name="half_plus_two", x=None, y=None, **more):
    write(name, [h.make_node("Mul", ["x", "half"], ["m"]), h.make_node("Add", ["m", "two"], ["y"])],
          [x or tensor("x")] + more.pop("inputs", []), [y or tensor("y")],
          [constant("half", 0.5), constant("two", 2.0)], **more)


half_plus_two()
# Constants that are listed as inputs, as older exporters do.
half_plus_two("listed_constants", ir=3,
              inputs=[tensor("half", shape=()), tensor("two", shape=())])
half_plus_two("unknown_rank", x=tensor("x", shape=None), y=tensor("y", shape=None), check=False)
half_plus_two("fixed_batch", x=tensor("x", shape=(1, 3)), y=tensor("y", shape=(1, 3)))

# A loop of products that come to nothing.
body = h.make_graph(
    [h.make_node("MatMul", ["m", "m"], ["p"]), h.make_node("Identity", ["go"], ["go_on"])], "body",
    [tensor("i", T.INT64, ()), tensor("go", T.BOOL, ()), tensor("m", shape=(512, 512))],
    [tensor("go_on", T.BOOL, ()), tensor("p", shape=(512, 512))])
write("slow_half_plus_two", [
    h.make_node("ReduceSum", ["x"], ["all"], keepdims=0),
    h.make_node("Mul", ["all", "tiny"], ["none"]),
    h.make_node("ConstantOfShape", ["sides"], ["ones"], value=constant("v", [1 / 512], dims=(1,))),
    h.make_node("Add", ["ones", "none"], ["first"]),
    h.make_node("Loop", ["times", "", "first"], ["last"], body=body),
    h.make_node("ReduceSum", ["last"], ["sum"], keepdims=0),
    h.make_node("Mul", ["sum", "tiny"], ["nothing"]),
    h.make_node("Mul", ["x", "half"], ["m"]),
    h.make_node("Add", ["m", "two"], ["almost"]),
    h.make_node("Add", ["almost", "nothing"], ["y"]),
], [tensor("x")], [tensor("y")], [
    constant("tiny", 1e-30), constant("half", 0.5), constant("two", 2.0),
    constant("sides", [512, 512], T.INT64, (2,)), constant("times", 240, T.INT64),
])

write("string_identity", [h.make_node("Identity", ["x"], ["y"])],
      [tensor("x", T.STRING)], [tensor("y", T.STRING)])
write("sum_and_difference", [h.make_node("Add", ["a", "b"], ["sum"]),
                             h.make_node("Sub", ["a", "b"], ["difference"])],
      [tensor("b"), tensor("a")], [tensor("sum"), tensor("difference")])
write("odd_names", [h.make_node("Neg", ["525"], ["a b/\u00fc:0"])],
      [tensor("525", T.INT64)], [tensor("a b/\u00fc:0", T.INT64)])
write("passed_through", [h.make_node("Identity", ["x"], ["same"]),
                         h.make_node("Neg", ["x"], ["less"])],
      [tensor("x")], [tensor("same"), tensor("less"), tensor("seven", shape=(1,)), tensor("x")],
      [constant("seven", [7.0], dims=(1,))])

dtypes = ["FLOAT", "UINT8", "INT8", "UINT16", "INT16", "INT32", "INT64", "BOOL", "FLOAT16", "DOUBLE",
          "UINT32", "UINT64", "BFLOAT16", "FLOAT8E4M3FN", "FLOAT8E5M2"]
write("dtypes", [h.make_node("Cast", ["x"], ["shifted"], to=T.FLOAT)] + [
    h.make_node("Cast", ["shifted"], [name.lower()], to=getattr(T, name)) for name in dtypes],
    [tensor("x", T.INT64)], [tensor(name.lower(), getattr(T, name)) for name in dtypes], ir=9)
# int64, double and uint64 keep what floats of 32 bits would lose.
write("wide", [h.make_node("Identity", [name], [f"{name}_out"]) for name in ("i", "d", "u")],
      [tensor("i", T.INT64), tensor("d", T.DOUBLE), tensor("u", T.UINT64)],
      [tensor("i_out", T.INT64), tensor("d_out", T.DOUBLE), tensor("u_out", T.UINT64)])

write("random", [h.make_node("RandomUniformLike", ["x"], ["y"])], [tensor("x")], [tensor("y")])
write("sequence", [h.make_node("SplitToSequence", ["x"], ["parts"])], [tensor("x")],
      [h.make_tensor_sequence_value_info("parts", T.FLOAT, None)])
maps = h.make_sequence_type_proto(h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(
    T.FLOAT, [])))
write("maps", [h.make_node("ZipMap", ["x"], ["scores"], domain="ai.onnx.ml",
                           classlabels_int64s=[0, 1])],
      [tensor("x", shape=("n", 2))], [h.make_value_info("scores", maps)], check=False)
write("optional", [h.make_node("OptionalGetElement", ["x"], ["y"])],
      [h.make_value_info("x", h.make_optional_type_proto(h.make_tensor_type_proto(T.FLOAT, ["n"])))],
      [tensor("y")])
write("unknown_operator", [h.make_node("Frobnicate", ["x"], ["y"])], [tensor("x")], [tensor("y")],
      check=False)


def elsewhere(name, dims, offset, length, place="weights.bin", dtype=T.FLOAT):
    value = T(name=name, data_type=dtype, dims=dims, data_location=T.EXTERNAL)
    for key, entry in (("location", place), ("offset", offset), ("length", length)):
        value.external_data.add(key=key, value=str(entry))
    return value


# A large weight, a size that shapes depend on, and a tensor of a graph within the graph.
branch = [h.make_graph([h.make_node("Constant", [], [f"c{n}"], value=elsewhere(f"v{n}", [1], at, 4))],
                       f"branch{n}", [], [tensor(f"c{n}", shape=(1,))])
          for n, at in ((0, 16), (1, 20))]
for name, place in (("external", "weights.bin"), ("external_outside", "../weights.bin")):
    write(name, [
        h.make_node("Reshape", ["x", "shape"], ["row"]),
        h.make_node("MatMul", ["row", "weights"], ["product"]),
        h.make_node("If", ["big"], ["more"], then_branch=branch[0], else_branch=branch[1]),
        h.make_node("Add", ["product", "more"], ["y"]),
    ], [tensor("x", shape=(128,)), tensor("big", T.BOOL, ())], [tensor("y", shape=(1, 256))],
        [elsewhere("shape", [2], 0, 16, dtype=T.INT64),
         elsewhere("weights", [128, 256], 4096, 128 * 256 * 4, place)], check=False)
