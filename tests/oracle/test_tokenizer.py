"""Token ids and decoded text, equal to Hugging Face tokenizers' on small tokenizers of every supported shape."""

import json
import random
import subprocess
import unicodedata

import pytest
import smollm2_to_mlx
from gguf import GGUFReader
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
          r"|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
         r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")

SEPARATOR = "<|separator|>"

LINES = [
    "The quick brown fox jumps over the lazy dog. It's what they'd say; WE'LL see, I'M sure.",
    "def attend(q, k, v):\n    return softmax(q @ k.T / 8.0) @ v  # 3 operands\n\n\tif x != 0x1F: pass",
    "for (int i = 0; i < 1234567; i++) { printf(\"%d\\n\", a[i]); }\r\n",
    "Zażółć gęślą jaźń. Größe, naïve café, Ångström, ﬁn, ½ cup, x² + y₂, Ⅷ, ①②③",
    "مرحبا بالعالم، كيف حالك اليوم؟ ١٢٣٤٥ السَّلَامُ عَلَيْكُمْ",
    "नमस्ते दुनिया, आप कैसे हैं? क्षत्रिय १२३ हिन्दी में लिखा हुआ",
    "สวัสดีชาวโลก ภาษาไทยไม่มีช่องว่างระหว่างคำ ๑๒๓",
    "你好，世界！今天天气很好。日本語のテキストとカタカナ、한국어 문장도 있습니다. 안녕하세요",
    "Привет, мир! Ёжик в тумане. Γειά σου Κόσμε. שלום עולם",
    "👩‍👩‍👧‍👦 family, 🇫🇷 flag, 👍🏽 thumbs, 🤷‍♀️ 😀😃😄 ❤️",
    "cafe\u0301 a\u0323\u0307 a\u0307\u0323 \u1e9b\u0323 \u212b \u0958 q\u0307\u0323 \uac00 \u1100\u1161\u11a8",
    "a  b   c    d\t\te \n\n\n f\u00a0g\u2003h\u3000i\u180ej\u200bk     ",
    "https://example.com/path?query=1&b=2#frag user@example.org 2024-01-31T12:34:56Z $1,234.56 100% C++ <b>bold</b>",
]


def corpus():
    """A few hundred lines: the lines above, and mixtures of their words."""
    words = [word for line in LINES for word in line.split(" ")]
    pick = random.Random(1)
    return LINES * 8 + [" ".join(pick.choices(words, k=9)) for _ in range(300)]


def random_text(pick):
    """Characters from everywhere, with much white space and many marks, since these are what patterns and normal
    forms are about. Old characters: the two sides' libraries know different versions of Unicode."""
    pools = [(0x20, 0x7f), (0x20, 0x7f), (0x300, 0x36f), (0xa0, 0x250), (0x370, 0x600), (0x600, 0x700), (0x900, 0xe80),
             (0x1100, 0x1200), (0x1e00, 0x2100), (0x2100, 0x2c00), (0x3000, 0x3400), (0x4e00, 0x5200),
             (0xac00, 0xad00), (0xf900, 0xfb50), (0x1f300, 0x1f700), (0x10000, 0x11000)]
    text = ""
    while len(text) < 120:
        low, high = pick.choice(pools)
        for _ in range(pick.randint(1, 6)):
            char = chr(pick.randrange(low, high))
            text += char if unicodedata.ucd_3_2_0.category(char) != "Cn" else pick.choice(" \n\t\r'")
    return text


def texts():
    pick = random.Random(2)
    made = ["", " ", "\n", "a", "\0", "a\0b", "  lead", "trail  ", "'S 'LL 'ſ", "x" * 3000, "ab" * 700, " " * 2000 + "x", "\n" * 500,
            "\u180e \u180e\u180ea", "\u0085x\u2028y\u2029", "e\u0301" * 50, "\u0301" * 40, "1" * 100, "\U0001f600" * 40]
    return made + LINES + ["".join(pick.choices(corpus(), k=3)) for _ in range(10)] + [random_text(pick) for _ in range(150)]


def train(pre_tokenizer, normalizer=None, special=(), model=None, alphabet=True, size=900, **options):
    tokenizer = Tokenizer(model or models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    initial = pre_tokenizers.ByteLevel.alphabet() if alphabet else []
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=size, show_progress=False, special_tokens=list(special), initial_alphabet=initial, **options))
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), behavior, invert=invert),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    return train(pre_tokenizers.ByteLevel(add_prefix_space=False))


def prefix_space():
    return train(pre_tokenizers.ByteLevel(add_prefix_space=True))


def llama3():
    tokenizer = train(split(LLAMA3), special=["<|begin|>", "<|end|>"])
    tokenizer.post_processor = processors.Sequence([
        processors.ByteLevel(trim_offsets=False),
        processors.TemplateProcessing(single="<|begin|> $A <|end|>", special_tokens=[("<|begin|>", 0), ("<|end|>", 1)])])
    spec = json.loads(tokenizer.to_str())
    spec["model"]["ignore_merges"] = True
    # A whole word that no merge makes: only ignore_merges finds it.
    spec["model"]["vocab"]["Ġphilosophy"] = len(spec["model"]["vocab"])
    return Tokenizer.from_str(json.dumps(spec))


def qwen():
    return train(split(QWEN), normalizers.NFC())


def o200k():
    return train(split(O200K), normalizers.Sequence([normalizers.NFKC()]))


def smollm():
    return train(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                          pre_tokenizers.ByteLevel(add_prefix_space=False)]), special=["<|end|>"])


def deepseek():
    return train(pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
        pre_tokenizers.Split(Regex("[一-龥\u3040-ゟ゠-ヿ]+"), "isolated"),
        pre_tokenizers.Split(Regex(r"\s+$"), "isolated"),
        pre_tokenizers.Split(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                                   r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]))


def lowercase():
    steps = [normalizers.NFD(), normalizers.Lowercase(), normalizers.Replace("a", "AA"), normalizers.Replace(Regex(r"\s+"), " "),
             normalizers.Prepend("^")]
    return train(split(GPT2), normalizers.Sequence(steps))


def nfkd():
    return train(split(GPT2), normalizers.NFKD())


def digit_runs():
    return train(pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=False),
                                          pre_tokenizers.ByteLevel(add_prefix_space=False)]))


def added():
    tokenizer = gpt2()
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens(["<|end|>", "<|end|>>", AddedToken("<mask>", lstrip=True), AddedToken("<stop>", rstrip=True)])
    tokenizer.add_tokens([AddedToken("dog", single_word=True), AddedToken("[both]", lstrip=True, rstrip=True),
                          AddedToken("caf\u00e9", normalized=True), AddedToken("   ", normalized=False), AddedToken("日本")])
    return tokenizer


def spm():
    tokenizer = train(pre_tokenizers.Split(" ", "merged_with_previous"),
                      normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
                      special=["<unk>", "<s>"] + [f"<0x{byte:02X}>" for byte in range(256)],
                      model=models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True), alphabet=False, limit_alphabet=60)
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(),
                                           decoders.Strip(" ", 1, 0)])
    return tokenizer


def metaspace(scheme):
    def make():
        tokenizer = train(pre_tokenizers.Metaspace(prepend_scheme=scheme), special=["<unk>", "<|end|>"],
                          model=models.BPE(unk_token="<unk>", fuse_unk=scheme == "first"), alphabet=False, limit_alphabet=60)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme=scheme)
        return tokenizer
    make.__name__ = f"metaspace_{scheme}"
    return make


def behavior(name, invert, pattern=r"\s|[,.]+|x*"):
    def make():
        return train(split(pattern, name, invert))
    make.__name__ = name + ("_inverted" if invert else "")
    return make


SHAPES = [gpt2, prefix_space, llama3, qwen, o200k, smollm, deepseek, lowercase, nfkd, digit_runs, added, spm,
          metaspace("always"), metaspace("first"), metaspace("never"),
          *(behavior(name, invert) for name in ("isolated", "removed", "merged_with_previous", "merged_with_next", "contiguous")
            for invert in (False, True))]


class Program:
    """mlxbench tokenize on one tokenizer. A text goes through standard input as UTF-8, unchanged."""

    def __init__(self, mlxbench, model):
        self.command = [str(mlxbench), "tokenize", "--model", str(model)]

    def run(self, data, *flags):
        done = subprocess.run([*self.command, *flags], input=data, capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def encode(self, text, *flags):
        return [int(word) for word in self.run(text.encode(), *flags).split()]

    def decode(self, ids, *flags):
        return self.run(" ".join(map(str, ids)).encode(), "--decode", *flags).decode()


def pytest_generate_tests(metafunc):
    if "shape" in metafunc.fixturenames:
        metafunc.parametrize("shape", SHAPES, ids=lambda shape: shape.__name__, scope="module")


@pytest.fixture(scope="module")
def pair(shape, mlxbench, tmp_path_factory):
    """The oracle and the program on the same tokenizer.json."""
    folder = tmp_path_factory.mktemp("tokenizer")
    oracle = shape()
    oracle.add_special_tokens([SEPARATOR])
    oracle.save(str(folder / "tokenizer.json"))
    return oracle, Program(mlxbench, folder)


def test_ids(pair):
    """All texts in one run, kept apart by a special token; the few where the very beginning matters alone too."""
    oracle, program = pair
    made = texts()
    wanted, got = oracle.encode(SEPARATOR.join(made)).ids, program.encode(SEPARATOR.join(made))
    if got != wanted:
        for text in made:
            assert program.encode(text) == oracle.encode(text).ids, repr(text)
    assert got == wanted
    for text in made[:6] + LINES[:3]:
        assert program.encode(text) == oracle.encode(text).ids, repr(text)
        assert program.encode(text, "--no-special") == oracle.encode(text, add_special_tokens=False).ids, repr(text)


def test_text(pair):
    oracle, program = pair
    pick = random.Random(3)
    lists = [oracle.encode(text).ids for text in LINES]
    lists += [pick.choices(range(oracle.get_vocab_size()), k=40) for _ in range(20)]
    for ids in lists:
        assert program.decode(ids) == oracle.decode(ids, skip_special_tokens=False), ids
        assert program.decode(ids, "--no-special") == oracle.decode(ids), ids


ADDED_TEXTS = ["<|end|>", "a<|end|>>b<|end|>c", "a  <mask>  b", "<mask><mask> <mask>", "a <stop>  \n b", " [both] x [both][both]  y",
               "dog", "a dog.", "hotdog dogs dog_ dog1 \u0301dog dog\u0301 dog", "dogdog dog dog", "cafe\u0301 caf\u00e9", "a    b      c",
               "日本語 日本", "  <stop>   <mask>   dog   ", "dogⒶ dog\u200d dog⓪"]


def test_added_tokens(mlxbench, tmp_path):
    oracle = added()
    oracle.save(str(tmp_path / "tokenizer.json"))
    program = Program(mlxbench, tmp_path)
    for text in ADDED_TEXTS:
        assert program.encode(text) == oracle.encode(text).ids, repr(text)


def test_invalid_utf8_is_replaced(mlxbench, tmp_path):
    oracle = gpt2()
    oracle.save(str(tmp_path / "tokenizer.json"))
    program = Program(mlxbench, tmp_path)
    for data in (b"\xff", b"a\xe4\xbdb", b"\xf0\x9f\x98", b"\xed\xa0\x80x", b"\xc0\xaf\xe0\x80\xaf", b"\xf4\x90\x80\x80 ok \xe4"):
        ids = [int(word) for word in program.run(data).split()]
        assert ids == oracle.encode(data.decode("utf-8", "replace")).ids, data


def test_long_words_and_long_texts(mlxbench, tmp_path):
    oracle = smollm()
    oracle.save(str(tmp_path / "tokenizer.json"))
    program = Program(mlxbench, tmp_path)
    for text in ("\n".join(corpus() * 20), "abcdefgh" * 40000, "你好" * 40000, " " * 300000):
        assert program.encode(text) == oracle.encode(text).ids


def test_demo_model(mlxbench, demo_model, tmp_path):
    """The GGUF file's vocabulary gives the ids that the same tokenizer as tokenizer.json gives, in both programs."""
    reader = GGUFReader(demo_model)
    oracle = smollm2_to_mlx.tokenizer_of(lambda name: reader.fields[name].contents())
    oracle.save(str(tmp_path / "tokenizer.json"))
    from_gguf, from_json = Program(mlxbench, demo_model), Program(mlxbench, tmp_path)
    joined = "<|im_end|>".join(texts() + LINES) + "\n".join(corpus())
    wanted = oracle.encode(joined).ids
    assert from_gguf.encode(joined) == wanted
    assert from_json.encode(joined) == wanted
    assert from_gguf.decode(wanted) == oracle.decode(wanted, skip_special_tokens=False)
    assert from_gguf.decode(wanted, "--no-special") == oracle.decode(wanted)
