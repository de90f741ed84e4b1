"""A checkpoint of DDColor as an ONNX graph for any size, which `--model` takes too and which needs no torch.

pip install 'chromatune[colorizers,export]'
python benchmarks/export_ddcolor.py ddcolor.pth ddcolor.onnx
"""

from __future__ import annotations

import argparse
import logging
import warnings
from pathlib import Path

from chromatune.pipeline.colorizer_files import find_colorizer
from chromatune.pipeline.ddcolor_checkpoint import open_ddcolor

MULTIPLE_PX = 32
TRACED_PX = 256
LARGEST_PX = 8192  # side of a pass, in the graph's declaration


def export_ddcolor(checkpoint: Path, out: Path) -> None:
    """Write the graph, with its weights inside and free height and width."""
    import torch

    network = open_ddcolor(find_colorizer(checkpoint.name, checkpoint))
    most = LARGEST_PX // MULTIPLE_PX
    height, width = (MULTIPLE_PX * torch.export.Dim(name, min=2, max=most) for name in ("rows", "columns"))
    logging.getLogger("onnxscript").setLevel(logging.ERROR)  # it tells of every constant that it leaves
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter's own
        torch.onnx.export(
            network,
            (torch.rand(1, 3, TRACED_PX, TRACED_PX),),
            out,
            input_names=["input"],
            output_names=["output"],
            opset_version=18,
            dynamo=True,
            dynamic_shapes=({2: height, 3: width},),
            external_data=False,
            verbose=False,
        )


def main() -> None:
    """Exports."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    export_ddcolor(arguments.checkpoint, arguments.out)


if __name__ == "__main__":
    main()
