"""Ids of captions by open_clip's tokenizer, for tests/it/clip_tokens.rs.

    pip install open_clip_torch
    python tests/golden/clip_tokens.py                    writes clip_tokens.json beside this file
    python tests/golden/clip_tokens.py CAPTIONS.txt IDS.jsonl
                 compares a corpus, a caption per line, with what
                 diptych sql "SELECT caption, tokenize(caption) AS ids FROM 'captions.jsonl'" --json
                 printed of the same captions, in any order: large files are read in parts, side by side;
                 prints how many differ, and the first of those

The one exception: captions with a literal <start_of_text> or <end_of_text>, which open_clip turns into its marks.
"""
import json, pathlib, sys, unicodedata
from open_clip import get_tokenizer

tokenizer = get_tokenizer("ViT-B-32")


def ids(caption):
    row = tokenizer([caption])[0].tolist()
    return row[: row.index(tokenizer.eot_token_id) + 1]


def misread(text):
    """UTF-8 that was read as windows-1252."""
    return "".join(bytes([b]).decode("cp1252", "replace") if b not in (0x81, 0x8D, 0x8F, 0x90, 0x9D) else chr(b)
                   for b in text.encode())


def captions():
    plain = """a photo of a cat|A Photo of a DOG|hello world|  spaces   and\ttabs\nand lines  |You should've done this|
        it's, isn't; we'll we're I'm he'd they've O'Brien's|3.14159 in 2024: 50% off!!!|e-mail@example.com http://a.b/c?d=e&f=g|
        #hashtag @user ... --- *** ((( )))|a_b_c snake_case CamelCase|½ ² ③ Ⅳ 四 ٣|C++ & C# < Java > Rust|x|.|0||   |'s|'S|'''s|
        don't stop 'til you're 'round|the the the the|supercalifragilisticexpialidocious antidisestablishmentarianism|
        naïve café Ñandú Ångström œuvre straße ẞ|İstanbul ıçÇ ΟΔΟΣ Σ ς ὈΔΥΣΣΕΎΣ|Привет, мир! Ёлка|你好，世界。日本語のテキスト 한국어|
        हिन्दी में एक वाक्य|العربية نص ١٢٣|ไทย ภาษา|עברית|ქართული|Tiếng Việt có dấu|e\u0301 composed and é|
        🙂 😀👍🏽 👩‍👩‍👧‍👦 🇩🇪 ❤️|☃ ★ → ← ∑ ∞ ≠ €£¥|“curly” ‘quotes’ ‚low‛ „low‟|en–dash em—dash ellipsis… bullet•|ﬁne ﬂow ﬀ ﬃ ŉ Ĳ|
        ＦＵＬＬｗｉｄｔｈ　ｱｲｳ ﾊﾟ|zero\u200bwidth soft\u00adhyphen nbsp\u00a0here\u2003em|\ufeffbom \u0007bell \u001b[31mred\u001b[0m|
        line\u2028sep para\u2029sep nel\u0085 cr\rlf\r\n|K Kelvin Å ſ long s|①②③ ㍿ ㎏ ™ © ®|ⓐⓑ Ⓒ 🅰 🄱|ª º µ|ǅ ǈ|
        ਪੰਜਾਬੀ ਲਿਪੀ|தமிழ் எழுத்து|မြန်မာ|ខ្មែរ|ⵜⵉⴼⵉⵏⴰⵖ|𝐁𝐨𝐥𝐝 𝓢𝓬𝓻𝓲𝓹𝓽|𐍈 𒀀|\u0300\u0301 alone|a\u0300\u0316b|x\u20dd"""
    found = plain.replace("\n        ", "").split("|")
    html = """&lt;b&gt;bold&lt;/b&gt;|&amp;amp;amp; deep|AT&amp;T &AMP; R&D|&eacute;&Eacute;&EACUTE; &nbsp; x|&#39;q&#39; &#x27;q&#X27; &#8217;|
        &copy 2020 &copyright &notit; &notin;|a?b=1&copy=2|<a href="x">&lt;y&gt;</a>|&quot;quoted&quot; &ldquo;x&rdquo;|&#150;&#x80;&#0;&#xD800;&#1114112;|
        &hearts;&spades; &NotEqualTilde;|&bogus; &; &#; &#x; &|&amp;quot;twice&amp;quot;|&lt;3 &gt;:( &amp;lt;|fish&chips &fish;&#32;&#9;x|&nbsp&nbsp;|
        &Auml;pfel &ouml;l &szlig;|&#x1F600; &#128512;|&rarr;&larr; &hellip;|&hellip &lt &gt; &AElig;|1 &times; 2 &divide; 3 &plusmn; 4|x&sup2; + y&sup3;"""
    found += html.replace("\n        ", "").split("|")
    found += [misread(text) for text in ["don’t", "“quoted” text", "café – naïve", "日本語", "Привет", "🙂 smile", "50 € only", "Ünïcödé",
              "résumé", "São Paulo", "it’s a “test”…", "piñata", "Zoë", "•bullet", "™ mark", "Ελληνικά", "déjà vu", "à la carte"]]
    found += [misread(misread("don’t café")), "mixed 日本 " + misread("don’t café"), "Ã©tÃ© &amp; " + misread("ñ")]
    found += ["Ã", "Â", "Â°C", "São ÃO", "ÃŸ", "Ãs", "naÃ¯ve", "â€œx", "Ø Å Æ ¿Qué? ¡Sí!", "ÀÉÎÕÜ àéîõü"]
    # Two and three characters that may be a misread one, or letters and punctuation, in a few places of a sentence.
    places = ["{}", "kar{}lis", "KAR{}LIS", "kar{}", "x {}lis", "(5{}, x", "“{}”", "日本 {}x {}", "Ð¾{} Ð´ 日"]
    for at, lead in enumerate([*range(0xC2, 0xE0)] * 11):
        follower = 0x80 + (at * 37 + at // 30) % 64
        found.append(places[at % len(places)].replace("{}", misread(bytes([lead, follower]).decode())))
    arabic = "هو من قلم كل كلمة هذا بيت كتاب شمس قمر باب مدرسة ولد بنت ماء نار جديد كبير صغير في على إلى عن مع پدر کتاب چای گل".split()
    found += [misread(word) for word in arabic] + [misread("صورة كلب") + " 日", misread("١٢٣ ٧ ٧٧")]
    found += ["A dog.Â A cat", "No.Â 5", "Red,Â blue", "Wow!Â Yes", "dog.Â “cat”", "x, Ã la", "le Ã la mode", "FIM.Ã A", "\tÅ£"]
    found += ["FranÃ\ufffdois", "voilÃ\ufffd", "Ã\ufffd la", "ã\ufffd¯", "日 FranÃ\ufffdois", "SÃ£\ufffdÂ\u00a0Paulo é"]
    for at in range(330):
        low, second, third = 0xE0 + at % 13, 0xA0 + at * 11 % 32, 0x80 + at * 29 % 64
        word = misread(bytes([low, second, third]).decode())
        found.append(places[at % len(places)].replace("{}", word.replace("\u00a0", " ") if at % 3 == 0 else word))
    found += ["dog " * 100, "antidisestablishmentarianism " * 20, "x" * 300, "🙂" * 60, "日本" * 80, "1" * 90, "a " * 75, "a " * 76]
    # A character of each letter, mark, number and sign that there is, a few scripts to a caption.
    names = []
    for code in list(range(0x21, 0x3000, 13)) + list(range(0x3000, 0x30000, 2203)):
        character = chr(code)
        if unicodedata.category(character)[0] in "LMNPSZ":
            names.append(f"{character} {unicodedata.name(character, '').lower()}")
    found += [" / ".join(names[at : at + 6]) for at in range(0, len(names), 6)]
    found += [chr(0x1F300 + at) + " " + unicodedata.name(chr(0x1F300 + at), "") for at in range(0, 900, 37)]
    return list(dict.fromkeys(found))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        lines = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8").split("\n")[:-1]
        theirs = [ids(line) for line in lines]
        found = {row["caption"]: row["ids"] for row in map(json.loads, open(sys.argv[2], encoding="utf-8"))}
        ours = [found[line] for line in lines]
        wrong = [at for at, (a, b) in enumerate(zip(ours, theirs)) if a != b]
        print(f"{len(wrong)} of {len(lines)} differ")
        for at in wrong[:20]:
            print(repr(lines[at]), "\n  ours  ", tokenizer.decode(ours[at]), "\n  theirs", tokenizer.decode(theirs[at]))
    else:
        rows = [[caption, ids(caption)] for caption in captions()]
        path = pathlib.Path(__file__).with_suffix(".json")
        path.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]\n", encoding="utf-8")
        print(path, len(rows), "captions,", path.stat().st_size, "bytes")
