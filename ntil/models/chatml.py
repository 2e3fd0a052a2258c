"""ChatML, the frame of a conversation that Qwen's language models were taught with."""

START, END = "<|im_start|>", "<|im_end|>"
TOKENS = (START, END)


def prompt(user: str, system: str) -> str:
    """A question, behind a system message where there is one, up to where the answer begins."""
    before = f"{START}system\n{system}{END}\n" if system else ""
    return f"{before}{START}user\n{user}{END}\n{START}assistant\n"
