"""The uploads of a campaign: sound ones, and what strangers may make of them."""

import json
import random
from collections.abc import Callable

from tests.adapter_files import CONFIG, WEIGHTS, pack
from tests.campaigns.spoiled_weights import (
    add_bytes,
    add_metadata,
    change_dtype,
    cut_weights,
    drop_half,
    edit_entry,
    flip_header,
    lie_about_length,
    name_a_tensor_twice,
    overlap_entries,
    put_no_number,
    raise_rank,
    rename_tensor,
    reshape_tensor,
    turn_tensor,
    write_odd_header,
)
from tests.campaigns.spoiled_words import (
    add_files,
    change_equation,
    cut_config,
    flip_config,
    put_junk_into_config,
    say_absurd_scale,
    write_many_patterns,
    write_odd_card,
    write_odd_config,
    write_odd_examples,
    write_slow_pattern,
)
from tests.campaigns.spoiled_zips import (
    add_link,
    add_many,
    add_member,
    be_no_zip,
    blow_up,
    cut_zip,
    double_member,
    encrypt_member,
    flip_directory,
    flip_zip,
    leave_out,
    name_oddly,
    pack_one_folder,
    pack_rarely,
    pack_two_folders,
    surround_zip,
)
from tests.campaigns.upload import Shapes, Upload, sound, zip_of


def leave_sound(u: Upload) -> None:
    u.refused = False


FAMILIES: dict[str, tuple[Callable[[Upload], None], ...]] = {
    "header": (
        *(flip_header, lie_about_length, cut_weights, add_bytes, edit_entry, overlap_entries),
        *(name_a_tensor_twice, write_odd_header, add_metadata),
    ),
    "tensors": (
        *(put_no_number, drop_half, rename_tensor, turn_tensor, reshape_tensor, raise_rank),
        change_dtype,
    ),
    "config": (
        *(put_junk_into_config, change_equation, say_absurd_scale, write_slow_pattern),
        *(write_many_patterns, cut_config, flip_config, write_odd_config),
    ),
    "cards": (write_odd_card, write_odd_examples, add_files),
    "zip": (
        *(flip_zip, flip_directory, cut_zip, surround_zip, add_member, add_link, double_member),
        *(encrypt_member, blow_up, add_many, pack_two_folders, pack_one_folder, pack_rarely),
        *(leave_out, be_no_zip, name_oddly),
    ),
    "sound": (leave_sound,),
}


def made(number: int, *, seed: int, shapes: Shapes) -> tuple[str, Upload]:
    """Upload `number` of a campaign: what was done to it, and its zip."""
    dice = random.Random(f"{seed}.{number}")
    upload = sound(dice, shapes)
    family = dice.choice(list(FAMILIES))
    change = dice.choice(FAMILIES[family])
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
