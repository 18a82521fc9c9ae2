"""Secrets and personal data: found where they are, and not in numbers and words that only look like them."""

from __future__ import annotations

import pytest

from tutelage.data.clean.personal import maybe_secrets, personal, secrets, without_personal, without_secrets
from tutelage.data.clean.traces import Traces

RANDOM = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"
# Put together here, so that no scanner takes this file for a leak.
SECRETS = [
    "sk-" + RANDOM,
    "sk-" + "proj-" + RANDOM,
    "sk-" + "ant-" + RANDOM,
    "gh" + "p_" + RANDOM,
    "github_" + "pat_" + RANDOM,
    "gl" + "pat-" + RANDOM[:20],
    "AK" + "IAQ2W3E4R5T6Y7U8I9",
    "AI" + "za" + RANDOM[:35],
    "xo" + "xb-" + RANDOM[:24],
    "h" + "f_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZaBcDeFgH",
    "s" + "k_live_" + RANDOM[:24],
    "np" + "m_" + RANDOM[:36],
    "S" + "G." + RANDOM[:22] + "." + RANDOM,
    "ey" + "J" + RANDOM[:20] + ".ey" + "J" + RANDOM[:20] + "." + RANDOM[:20],
    "-----BEGIN RSA PRIVATE" + " KEY-----\nMIIB\n" + RANDOM + "\n-----END RSA PRIVATE" + " KEY-----",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_secrets_are_masked(secret: str) -> None:
    for around in ("{}", "use {}.", "密钥是{}。", "KEY='{}'\n"):
        text = around.format(secret)
        assert without_secrets(text) == around.format("[SECRET]")
        assert maybe_secrets(Traces(text))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('api_key = "q8Zr5Tn2Lx9Wc4Vb7"', 'api_key = "[SECRET]"'),
        ("Token: q8Zr5Tn2Lx9Wc4Vb7", "Token: [SECRET]"),
        ("postgres://jo:hunter22@db.host/x", "postgres://jo:[SECRET]@db.host/x"),
    ],
)
def test_named_secrets_are_masked(text: str, wanted: str) -> None:
    assert without_secrets(text) == wanted
    assert maybe_secrets(Traces(text))


@pytest.mark.parametrize(
    "text",
    [
        "a task-oriented-dialogue-with-many-turns and a risk-" + "x" * 30,
        "sk-" + "x" * 40,
        "AKIAIOSFODNN7EXAMPLE",
        "api_key = YOUR_API_KEY_GOES_HERE",
        "token = tokenizer.encode(text)[0]",
        "password: aaaaaaaaaaaaaaaa1",
        "the key: 16 characters long, at least",
        "https://example.org/a:b@c is no login? https://jo@host/",
        "num_memory_tokens = 12345678, use_cls_token = True",
        "commit 3f786850e387550fdab836ed7e6dc881de23001b",
    ],
)
def test_what_only_looks_like_a_secret_is_none(text: str) -> None:
    assert list(secrets(text)) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Write to jo.public+a@mail.uni-x.de.", "Write to [EMAIL]."),
        ("邮箱jo@mail.org谢谢", "邮箱[EMAIL]谢谢"),
        ("<a@b.io>, c@d.co", "<[EMAIL]>, [EMAIL]"),
        ("Call +44 20 7946 0958 or +49 (89) 636-48018!", "Call [PHONE] or [PHONE]!"),
        ("(415) 862-3773, 415-862-3773, 1 415 862 3773", "[PHONE], [PHONE], [PHONE]"),
        ("电话13812345678。", "电话[PHONE]。"),
        ("4111 1111 1111 1111 and 5500-0055-5555-5559", "[CARD] and [CARD]"),
        ("IBAN GB82 WEST 1234 5698 7654 32.", "IBAN [IBAN]."),
        ("DE89370400440532013000", "[IBAN]"),
    ],
)
def test_personal_data_are_masked(text: str, wanted: str) -> None:
    assert without_personal(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "me@example.com, a@example.org",
        "x = y@z and @handle",
        "4111 1111 1111 1112",  # the check digit is wrong
        "GB82 WEST 1234 5698 7654 33",
        "1,234,567,890 + 415 = 3.1415926535897932",
        "12345678 times 98765432",
        "2023-01-02 10:11:12, 192.168.100.200",
        "x13812345678 = 2*13812345678*2, 4444 4444 4444 4444",
        "1 2 3 4 5 6 7 8 9 10 11 12",
        "ISBN 978-3-16-148410-0",
    ],
)
def test_what_only_looks_like_personal_data_is_none(text: str) -> None:
    assert list(personal(text)) == []


def test_long_runs_take_no_long_time() -> None:
    import time

    start = time.perf_counter()
    for text in ("a" * 200_000, "1" * 200_000, "a." * 100_000 + "@", "1 " * 100_000, "+1" * 100_000, "key=" * 50_000):
        list(personal(text))
        list(secrets(text))
    assert time.perf_counter() - start < 5
