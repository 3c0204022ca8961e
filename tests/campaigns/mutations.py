"""The uploads of a campaign: sound ones, and what strangers may make of them."""

import json
import random

from tests.adapter_files import CONFIG, WEIGHTS, pack
from tests.campaigns import spoiled_weights as weights, spoiled_words as words, spoiled_zips as zips
from tests.campaigns.upload import Shapes, Upload, sound, zip_of

WAYS = {
    "header": (
        weights,
        "flip_header lie_about_length cut_weights add_bytes edit_entry overlap_entries "
        "name_a_tensor_twice write_odd_header add_metadata",
    ),
    "tensors": (
        weights,
        "put_no_number drop_half rename_tensor turn_tensor reshape_tensor raise_rank change_dtype",
    ),
    "config": (
        words,
        "put_junk_into_config change_equation say_absurd_scale write_slow_pattern "
        "write_many_patterns cut_config flip_config write_odd_config",
    ),
    "cards": (words, "write_odd_card write_odd_examples add_files"),
    "zip": (
        zips,
        "flip_zip flip_directory cut_zip surround_zip add_member add_link double_member "
        "encrypt_member blow_up add_many pack_two_folders pack_one_folder pack_rarely leave_out "
        "be_no_zip name_oddly",
    ),
    "sound": (zips, "leave_sound"),
}
"""By family: the module of its functions, and their names."""


def made(number: int, *, seed: int, shapes: Shapes) -> tuple[str, Upload]:
    """Upload `number` of a campaign: what was done to it, and its zip."""
    dice = random.Random(f"{seed}.{number}")
    upload = sound(dice, shapes)
    family = dice.choice(list(WAYS))
    module, names = WAYS[family]
    change = getattr(module, dice.choice(names.split()))
    if family in ("tensors", "sound"):
        change(upload)
    upload.weights = pack(upload.arrays)
    if family in ("header", "config", "cards"):
        change(upload)
    upload.files[WEIGHTS] = upload.weights
    upload.files.setdefault(CONFIG, json.dumps(upload.config).encode())
    upload.zipped = zip_of(upload.files)
    if family == "zip":
        change(upload)
    return f"{family}: {change.__name__}", upload
