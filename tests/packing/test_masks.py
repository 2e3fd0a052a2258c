"""What a packed token may see, and that all layers keep one mask."""

import torch
from torch.nn.attention.flex_attention import create_mask

from ntil.packing.masks import attention_mask, block_mask, visible

# Two sequences: a beginning of two tokens with examples of two and one; an example alone, and nothing after it.
SEGMENTS = torch.tensor(
    [
        [[0, 0, 1, 1, 2], [0, 0, 0, 0, 0]],
        [[0, 0, 0, -1, -1], [0, 0, 0, -1, -1]],
    ],
    dtype=torch.int32,
)
SEEN = [
    ["x....", "xx...", "xxx..", "xxxx.", "xx..x"],
    ["x....", "xx...", "xxx..", "...x.", "...xx"],
]


def as_text(mask):
    return [["".join("x" if seen else "." for seen in row) for row in sequence[0]] for sequence in mask.tolist()]


def test_a_token_sees_its_beginning_and_its_example_up_to_itself():
    assert as_text(visible(SEGMENTS)) == SEEN


def test_the_mask_that_is_added_hides_the_rest():
    for dtype in (torch.float32, torch.bfloat16):
        mask = attention_mask(SEGMENTS, "sdpa", dtype)
        assert mask.dtype == dtype
        assert torch.equal(mask == 0, visible(SEGMENTS))
        assert (mask[mask != 0] == torch.finfo(dtype).min).all()


def test_the_block_mask_sees_the_same():
    mask = block_mask(SEGMENTS)
    seen = create_mask(mask.mask_mod, 2, 1, 5, 5, device="cpu")
    assert torch.equal(seen, visible(SEGMENTS))


def test_all_layers_keep_one_mask_for_the_backward():
    length, layers = 256, 4
    segments = torch.zeros(1, 2, length, dtype=torch.int32)
    mask = attention_mask(segments, "sdpa", torch.float32)
    stored: dict[int, int] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    hidden = torch.randn(1, 1, length, 8, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        for _ in range(layers):
            hidden = torch.nn.functional.scaled_dot_product_attention(hidden, hidden, hidden, attn_mask=mask)
    assert [size for size in stored.values() if size >= 4 * length * length] == [4 * length * length]
