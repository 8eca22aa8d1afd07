#!/usr/bin/env python3
"""The teacher's own F0 for every clip of a corpus that it spoke: what its sine source was driven with.

    TEACHER/venv/bin/python teacher_pitch.py TEACHER CORPUS OUT.safetensors     (TEACHER: made by setup.sh; CORPUS:
    meta.*.jsonl)

Needs safetensors in that environment: TEACHER/venv/bin/pip install safetensors.

The teacher's graph has no randomness, so its predictor alone (a hundredth of a second for a second of speech) gives
F0 again,
in Hz every 300 samples, under 10 where unvoiced. Clips whose durations come out otherwise than in the meta file are
refused.
Then: recipes/default_voice/run.sh --pitch CORPUS=OUT.safetensors ...
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime as ort
from safetensors.numpy import save_file

F0, DURATIONS = "/encoder/F0_proj/Conv_output_0", "/encoder/Clip_output_0"


def predictor(path: pathlib.Path) -> ort.InferenceSession:
    """The part of the graph that F0 and the durations need."""
    model = onnx.load(path)
    makers = {name: node for node in model.graph.node for name in node.output}
    wanted, needed = [F0, DURATIONS], set()
    while wanted:
        node = makers.get(wanted.pop())
        if node is None or id(node) in needed:
            continue
        needed.add(id(node))
        wanted += node.input
        wanted += [name for a in node.attribute for inner in a.g.node for name in inner.input]
    nodes = [node for node in model.graph.node if id(node) in needed]
    used = {name for node in nodes for name in node.input}
    weights = [w for w in model.graph.initializer if w.name in used]
    for field, kept in ((model.graph.node, nodes), (model.graph.initializer, weights)):
        del field[:]
        field.extend(kept)
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in (F0, DURATIONS)
    )
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def main() -> None:
    """Command line."""
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    teacher, corpus, out = (pathlib.Path(a) for a in sys.argv[1:])
    net = predictor(teacher / "kokoro.onnx")
    vocab = json.loads((teacher / "vocab.json").read_text())["vocab"]
    curves, styles, refused = {}, {}, 0
    for file in sorted(corpus.glob("meta.*.jsonl")):
        for line in file.open():
            clip = json.loads(line)
            voice, ids = clip["voice"], [vocab[c] for c in clip["phonemes"]]
            if voice not in styles:
                styles[voice] = np.fromfile(teacher / f"voices/{voice}.bin", np.float32).reshape(-1, 256)
            feed = {
                "style": styles[voice][len(ids) - 1][None],
                "speed": np.ones(1, np.float32),
                "tokens": np.array([[0, *ids, 0]], np.int64),
            }
            f0, frames = net.run(None, feed)
            if [int(x) for x in frames.ravel()] != clip["frames"]:
                refused += 1
                continue
            curves[clip["id"]] = f0.ravel().astype(np.float32)
    save_file(curves, out)
    print(f"{len(curves)} clips; {refused} with other durations left out")


if __name__ == "__main__":
    main()
