"""The base model that the settings name, as training computes it."""

from ramole_core.base.model import BaseModel, load_base, pick_device
from ramole_core.kernels.half_dots import THERE as MULTIPLIES_BFLOAT16
from ramole_core.settings import load_settings


def load_configured_base(quantization: str | None = None) -> BaseModel:
    """Load the base, quantised by the settings or as given; raises RamoleError where it cannot be
    loaded. Where RAMOLE_DTYPE says nothing, and the CPU does not multiply bfloat16, it computes in
    float32: PyTorch's products in bfloat16 are 8 to 150 times as slow there."""
    settings = load_settings()
    slow = pick_device(settings.device).type == "cpu" and not MULTIPLIES_BFLOAT16
    return load_base(
        settings.base_model,
        data_dir=settings.data_dir,
        quantization=quantization or settings.quantization,
        dtype="float32" if slow and settings.dtype == "auto" else settings.dtype,
        device=settings.device,
        chat_template=settings.chat_template,
    )
