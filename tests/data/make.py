#!/usr/bin/env python3
"""Makes the fixtures of this folder anew: see README.md for what they are and what is needed.

    /usr/bin/python3 tests/data/make.py [FILE…]
"""
import base64
import html
import os
import pathlib
import quopri
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
PAPER = (HERE / "source/paper.txt").read_text("utf-8")
ENV = {**os.environ, "SOURCE_DATE_EPOCH": "1700000000"}


def blocks(text=PAPER):
    """(is a heading, text) of every paragraph."""
    for block in text.strip().split("\n\n"):
        yield block.startswith("# "), block.removeprefix("# ").replace("\n", " ")


def run(*command, cwd, **options):
    return subprocess.run(command, cwd=cwd, env=ENV, check=True, stdout=subprocess.PIPE, **options).stdout


def groff(work):
    """No Cyrillic and no accented Greek in its standard fonts: that section is left out."""
    text = re.sub(r"# Greek and Cyrillic\n\n.*?\n\n", "", PAPER, flags=re.S)
    (HERE / "source/paper-groff.txt").write_text(text, "utf-8")
    lines = [".nr PS 11", ".nr VS 14"]
    for heading, block in blocks(text):
        # groff's text fonts have no z with an acute accent.
        block = block.replace("Łódź", "Łód\\o'z\\[aa]'")
        lines += [".SH" if heading else ".PP", block]
    source = "\n".join(lines) + "\n"
    return run("groff", "-Tpdf", "-k", "-ms", cwd=work, input=source.encode())


def libreoffice(work):
    """Two columns, DejaVu Serif as Type 0 fonts."""
    body = "".join(
        f'<text:{"h" if h else "p"} text:style-name="{"H" if h else "P"}">{html.escape(b)}</text:{"h" if h else "p"}>'
        for h, b in blocks()
    )
    names = {"office": "office", "style": "style", "text": "text", "fo": "xsl-fo-compatible"}
    spaces = " ".join(
        f'xmlns:{short}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for short, name in names.items()
    )
    (work / "paper.fodt").write_text(
        f"""<?xml version="1.0" encoding="UTF-8"?>
<office:document {spaces} office:version="1.2" office:mimetype="application/vnd.oasis.opendocument.text">
<office:automatic-styles>
<style:style style:name="P" style:family="paragraph"><style:paragraph-properties fo:text-align="justify" fo:margin-bottom="0.2cm"/>
<style:text-properties fo:font-family="'DejaVu Serif'" fo:font-size="9.5pt" fo:language="en" fo:country="GB"/></style:style>
<style:style style:name="H" style:family="paragraph"><style:text-properties fo:font-family="'DejaVu Serif'" fo:font-weight="bold" fo:font-size="12pt"/></style:style>
<style:style style:name="S" style:family="section"><style:section-properties><style:columns fo:column-count="2" fo:column-gap="0.8cm"/></style:section-properties></style:style>
</office:automatic-styles>
<office:body><office:text><text:section text:style-name="S" text:name="two">{body}</text:section></office:text></office:body>
</office:document>""",
        "utf-8",
    )
    profile = f"-env:UserInstallation=file://{work}/profile"
    run("soffice", profile, "--headless", "--convert-to", "pdf", "paper.fodt", cwd=work)
    return (work / "paper.pdf").read_bytes()


def pdftex(work):
    """Two columns, hyphenated, ligatures, embedded Type 1 fonts without ToUnicode, object streams."""
    out = [
        r"\documentclass[twocolumn,10pt]{article}\usepackage[T2A,LGR,T1]{fontenc}\usepackage[utf8]{inputenc}",
        r"\usepackage{lmodern}\usepackage[russian,greek,english]{babel}\pagestyle{empty}",
        r"\pdfobjcompresslevel=2\pdfminorversion=5\pdfgentounicode=0\begin{document}",
    ]
    for heading, block in blocks():
        block = block.replace("%", r"\%")
        block = re.sub(r"([\u0370-\u03ff][\u0370-\u03ff ]+)", r"\\foreignlanguage{greek}{\1}", block)
        block = re.sub(r"([\u0400-\u04ff][\u0400-\u04ff ,]+)", r"\\foreignlanguage{russian}{\1}", block)
        out.append(rf"\section*{{{block}}}" if heading else block + "\n")
    (work / "paper.tex").write_text("\n".join([*out, r"\end{document}"]), "utf-8")
    run("pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex", cwd=work)
    return (work / "paper.pdf").read_bytes()


def cairo(work):
    """Pango over Cairo: justified, subset TrueType fonts."""
    markup = "\n\n".join(f"<b>{html.escape(b)}</b>" if h else html.escape(b) for h, b in blocks())
    run(
        "pango-view", "-q", "--backend=cairo", "--font=DejaVu Sans 10", "--markup", "--justify", "--width=430",
        "--text", markup, "--output", "paper.pdf", cwd=work,
    )
    return (work / "paper.pdf").read_bytes()


def typst(work):
    """Justified and hyphenated, Libertinus Serif as Type 0 fonts."""
    import typst as compiler

    text = "\n\n".join(("= " if h else "") + b.replace("@", "\\@") for h, b in blocks())
    source = work / "paper.typ"
    source.write_text(f"#set document(title: [The Ledger], author: \"Crank\", date: datetime(year: 2024, month: 1, day: 1))\n#set par(justify: true)\n#set text(lang: \"en\", hyphenate: true, 10pt)\n{text}\n", "utf-8")
    return compiler.compile(str(source))


def image_only(work):
    """A page that shows an image, and not one character."""
    import cairo as graphics

    image = graphics.ImageSurface(graphics.FORMAT_RGB24, 60, 40)
    pen = graphics.Context(image)
    for i in range(6):
        pen.set_source_rgb(i / 6, 0.5, 1 - i / 6)
        pen.rectangle(10 * i, 0, 10, 40)
        pen.fill()
    page = graphics.PDFSurface(str(work / "image.pdf"), 300, 200)
    pen = graphics.Context(page)
    pen.scale(5, 5)
    pen.set_source_surface(image)
    pen.paint()
    page.finish()
    return (work / "image.pdf").read_bytes()


def encrypted(user):
    """Cairo's file under AES-256. Without a user password anyone may read it."""
    def make(work):
        run("qpdf", "--encrypt", user, "owner", "256", "--", HERE / "cairo.pdf", "e.pdf", cwd=work)
        return (work / "e.pdf").read_bytes()

    return make


def broken(_):
    """A header, and then what no reader can make a document of."""
    return b"%PDF-1.7\n" + bytes((i * 37 + i // 7) % 256 for i in range(3000))


def lines(text):
    """As it travels: every line ends with a carriage return and a line feed."""
    return text.encode("ascii").replace(b"\n", b"\r\n")


def base64_lines(data):
    return base64.encodebytes(data).decode().strip()


def nested(_):
    """Parts within parts, four charsets, both encodings, attachments, another message inside."""
    plain = quopri.encodestring(
        "Sehr geehrte Frau Weiß,\n\nanbei das Logbuch für März; die Öllampe brennt wieder.\n"
        "Diese Zeile ist so lang, dass sie im Brief umgebrochen wird, und doch ist sie eine einzige Zeile geblieben.\n\nZoë Ångström\n".encode("iso-8859-1")
    ).decode().strip()
    page = base64_lines("<html><body><p>Sehr geehrte Frau <b>Weiß</b>,</p></body></html>".encode("utf-8"))
    russian = base64_lines("Море помнит всех.\n".encode("koi8-r"))
    table = base64_lines(b"Tag;Liter\n1;3,5\n")
    japanese = base64_lines("灯台は光っています。\n".encode("iso-2022-jp"))
    subject = base64.b64encode("Logbuch März – η γνώση".encode()).decode()
    return lines(
        f"""From: =?iso-8859-1?Q?Zo=EB_=C5ngstr=F6m?= <zoe@leuchtturm.example>
To: =?utf-8?Q?Wei=C3=9F=2C_Anna?= <anna@amt.example>, keeper@leuchtturm.example
Cc: =?koi8-r?B?{base64.b64encode("Капитан".encode("koi8-r")).decode()}?= <captain@odessa.example>
Date: Thu, 01 Sep 2022 21:15:30 +0200
Subject: =?utf-8?B?{subject}?=
Message-ID: <1887@leuchtturm.example>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary="outer"

This is a message in several parts.
--outer
Content-Type: multipart/related; boundary="related"

--related
Content-Type: multipart/alternative; boundary="alternative"

--alternative
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

{plain}
--alternative
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: base64

{page}
--alternative--
--related
Content-Type: image/png
Content-ID: <lamp>
Content-Disposition: inline; filename="lamp.png"
Content-Transfer-Encoding: base64

iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg==
--related--
--outer
Content-Type: text/plain; charset=koi8-r
Content-Transfer-Encoding: base64

{russian}
--outer
Content-Type: text/plain; charset=iso-2022-jp
Content-Transfer-Encoding: base64

{japanese}
--outer
Content-Type: text/csv; charset=utf-8
Content-Disposition: attachment; filename*=utf-8''%C3%96lverbrauch.csv
Content-Transfer-Encoding: base64

{table}
--outer
Content-Type: message/rfc822
Content-Disposition: attachment; filename="earlier.eml"

From: keeper@leuchtturm.example
To: zoe@leuchtturm.example
Subject: Reflector

The reflector is cracked.
--outer--
"""
    )


def html_only(_):
    """A message that is HTML and nothing else."""
    return lines(
        """From: office@harbour.example
To: keeper@leuchtturm.example
Date: Fri, 2 Sep 2022 08:00:00 +0000
Subject: Reflector
MIME-Version: 1.0
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

<html><head><title>Not the text</title><style>p { color: red }</style>
<script>alert("not the text")</script></head>
<body><h1>The reflector</h1><p>It costs 27&nbsp;=E2=82=AC &amp; arrives on <b>Mon</b>day.</p>
<ul><li>one mirror</li><li>two screws</li></ul></body></html>
"""
    )


REPORT = """---
title: Report of the keeper
author: Zoë Ångström
---

# The lamp

The lamp burns **every** night; see [the rules](https://example.org/rules).[^oil]

[^oil]: Colza oil, since 1841.

## What is needed

- oil
    - colza
    - paraffin
- wicks & glass

1. Fill it.
2. Light it.

| Day | Litres | Remark |
|-----|-------:|--------|
| 1   |    3.5 | calm   |
| 2   |    4.0 | a < b  |

## In other tongues

المصباح مضاء كل ليلة.

המנורה דולקת בכל לילה.

灯台は毎晩光っています。
"""


def pandoc(to):
    """The report as pandoc writes it, under names of its own for styles and lists."""
    def make(work):
        import pypandoc

        (work / "report.md").write_text(REPORT, "utf-8")
        pypandoc.convert_file(str(work / "report.md"), to, outputfile=str(work / "report"), format="markdown")
        return (work / "report").read_bytes()

    return make


def writer(work):
    """The report as LibreOffice writes it: pandoc's OpenDocument, opened and saved."""
    (work / "report.odt").write_bytes(pandoc("odt")(work))
    profile = f"-env:UserInstallation=file://{work}/profile"
    run("soffice", profile, "--headless", "--convert-to", "docx:MS Word 2007 XML", "report.odt", cwd=work)
    return (work / "report.docx").read_bytes()


def python_docx(work):
    """The report as a program writes it: Word's built-in styles, merged cells, a nested table."""
    import docx

    report = docx.Document()
    report.core_properties.title, report.core_properties.author = "Report of the keeper", "Zoë Ångström"
    report.add_heading("The lamp", 1)
    paragraph = report.add_paragraph("The lamp burns ")
    paragraph.add_run("every").bold = True
    paragraph.add_run(" night;\tsee\nthe rules.")
    report.add_heading("What is needed", 2)
    for text, style in [
        ("oil", "List Bullet"), ("colza", "List Bullet 2"), ("paraffin", "List Bullet 2"),
        ("wicks & glass", "List Bullet"), ("Fill it.", "List Number"), ("Light it.", "List Number"),
    ]:
        report.add_paragraph(text, style)
    table = report.add_table(rows=3, cols=3)
    for row, cells in zip(table.rows, [["Day", "Litres", "Remark"], ["1", "3.5", "calm"], ["2", "4.0", "a < b"]]):
        for cell, text in zip(row.cells, cells):
            cell.text = text
    cells = table.add_row().cells
    cells[0].merge(cells[1]).text = "all"
    cells[2].add_table(1, 2).rows[0].cells[1].text = "7.5"
    report.add_heading("In other tongues", 2)
    for text in ["المصباح مضاء كل ليلة.", "המנורה דולקת בכל לילה.", "灯台は毎晩光っています。"]:
        report.add_paragraph(text)
    report.save(str(work / "report.docx"))
    return (work / "report.docx").read_bytes()


def empty_docx(work):
    """Not one word."""
    import docx

    docx.Document().save(str(work / "empty.docx"))
    return (work / "empty.docx").read_bytes()


def bomb(work):
    """Relations to a document that is 130 MiB of spaces."""
    relations = '<Relationships><Relationship Type="x/officeDocument" Target="word/document.xml"/></Relationships>'
    with zipfile.ZipFile(work / "bomb.docx", "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr("_rels/.rels", relations)
        archive.writestr("word/document.xml", b" " * (130 << 20))
    return (work / "bomb.docx").read_bytes()


MAKERS = {
    "groff.pdf": groff,
    "libreoffice.pdf": libreoffice,
    "pdftex.pdf": pdftex,
    "cairo.pdf": cairo,
    "typst.pdf": typst,
    "encrypted.pdf": encrypted("secret"),
    "encrypted-readable.pdf": encrypted(""),
    "broken.pdf": broken,
    "image-only.pdf": image_only,
    "nested.eml": nested,
    "html-only.eml": html_only,
    "pandoc.docx": pandoc("docx"),
    "libreoffice.docx": writer,
    "python-docx.docx": python_docx,
    "empty.docx": empty_docx,
    "bomb.docx": bomb,
}

if __name__ == "__main__":
    for name in sys.argv[1:] or MAKERS:
        make = MAKERS[name]
        work = pathlib.Path(tempfile.mkdtemp())
        data = make(work)
        (HERE / name).write_bytes(data)
        shutil.rmtree(work)
        print(f"{name}: {len(data)} bytes")
