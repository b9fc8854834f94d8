"""A seeded maker of bad and odd inputs, and a judge of what the library does with each: the right pixels, or one line that names the file.

python tests/fuzz.py [--n 1000] [--seed 0] [--only FAMILY[,FAMILY]] [--case K] [--keep DIR]

Case k of a seed is always the same file. A process of its own goes through the cases; one that ends it, or takes too long, is a failure of
that case, and the next process begins behind it. Memory is measured case by case.
"""
import argparse, contextlib, gzip, importlib.util, io, json, os, re, resource, select, shutil, signal, struct, sys, tempfile, time, traceback, warnings, zlib
from pathlib import Path
from typing import NamedTuple
import numpy as np, tifffile
from PIL import Image

SECONDS, MEMORY = 20, 400*2**20               # that a case may take: seconds on a machine that does other things too; bytes beside those of its pixels
PEOPLE = 65534                                # a user who may read nothing of the administrator's

class Case(NamedTuple):
    "A file to be, and what must come of it"
    name: str                                 # of the file
    data: object = b''                        # its bytes, or a function folder -> None that makes it
    want: object = None                       # the pixels that must come back; None: not known
    rule: str = 'any'                         # 'read', 'refuse', or 'any': read rightly, or refused
    near: bool = False                        # the pixels have been through a lossy coder
    listed: bool = True                       # is it among the images of its folder
    drop: bool = False                        # it vanishes between listing and reading
    poor: bool = False                        # read by a user who may not
    frames: bool = False                      # a file for `open_document`; `want` are its frames
    same: bytes | None = None                 # stored numbers that must be in the file that is written where nothing changed
    cut: object = None                        # the frames before a piece was cut off: what is read must be the first of them

FAMILIES = {}
def family(f): FAMILIES[f.__name__] = f; return f

def pick(g, *options): return options[int(g.integers(len(options)))]

def size_of(g):
    "Height and width, now and then the smallest"
    return pick(g, (1, 1), (1, int(g.integers(2, 300))), (int(g.integers(2, 300)), 1), (2, 3), *[tuple(int(n) for n in g.integers(3, 60, 2)) for _ in range(5)])

def draw(g, bits=8, channels=0, size=None):
    "Random samples of so many bits"
    h, w = size or size_of(g); return g.integers(0, 2**bits, (h, w, channels) if channels else (h, w)).astype(np.uint8 if bits <= 8 else np.uint16)

def smooth(g, channels=3):
    "A picture that survives a lossy coder"
    h, w = (int(n) for n in g.integers(24, 60, 2)); a, b, c = g.uniform(20, 235, 3)
    x = np.stack([*np.meshgrid(np.linspace(a, b, w), np.linspace(b, c, h)), np.full((h, w), (a + c)/2)], -1).astype(np.uint8)
    return x if channels == 3 else x[..., 0]

def full(v, bits):
    "Samples of so many bits on the whole scale of 8 or 16: the bits again and again"
    if bits <= 8: return (v.astype(np.uint32)*255//(2**bits - 1)).astype(np.uint8)
    return (v.astype(np.uint32) << (16 - bits) | v.astype(np.uint32) >> (2*bits - 16)).astype(np.uint16)


# coders of our own, for what others do not write ------------------------------------------------------------------------------

def packed(v, bits):
    "Rows of samples as bytes, the first sample in the highest bits"
    h = v.shape[0]
    if bits == 8: return v.astype(np.uint8).reshape(h, -1)
    if bits == 16: return v.astype('>u2').reshape(h, -1).view(np.uint8)
    return np.packbits((v.reshape(h, -1, 1).astype(np.uint32) >> np.arange(bits - 1, -1, -1) & 1).astype(np.uint8).reshape(h, -1), axis=1)

def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))

def png(v, bits, colour, interlace=0, before=b'', after=b'', size=None, g=None):
    "A PNG; `size`: what it says instead of the truth"
    lines = b''
    passes = [(0, 0, 1, 1)] if not interlace else [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    for a, b, da, db in passes:
        if not (part := v[a::da, b::db]).size: continue
        old = None
        for row in packed(part, bits):
            how = 2 if old is not None and g is not None and g.random() < .5 else 0                  # as it is, or less the line above
            lines += bytes([how]) + (row - old if how else row).tobytes(); old = row
    h, w = size or v.shape[:2]
    head = struct.pack('>IIBBBBB', w, h, bits, colour, 0, 0, interlace)
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', head) + before + chunk(b'IDAT', zlib.compress(lines)) + after + chunk(b'IEND', b'')

def tiff(v, bits, kind=1, zip=False, tags=(), size=None, fmt=1, end=0, order='<', data=None):
    "A TIFF of one strip: `v` HxW or HxWxC samples; `tags`: more (tag, type, count, value), or others instead; `end`: where it says that the next image is"
    h, w = v.shape[:2]; n = 1 if v.ndim == 2 else v.shape[2]
    raw = data if data is not None else v.astype(v.dtype.newbyteorder(order)).tobytes() if bits in (16, 32, 64) else packed(v, bits).tobytes()
    raw = zlib.compress(raw) if zip else raw
    height, width = size or (h, w); many = struct.pack(order + f'{n}H', *[bits]*n) + bytes(8)
    rows = {256: (4, 1, width), 257: (4, 1, height), 258: (3, n, bits if n == 1 else bits | bits << 16 if n == 2 else 'many'), 259: (3, 1, 8 if zip else 1),
            262: (3, 1, kind), 273: (4, 1, 'data'), 277: (3, 1, n), 278: (4, 1, height), 279: (4, 1, len(raw)), 339: (3, n, fmt if n == 1 else 'format')}
    if n > 1: rows[339] = (3, n, 'format')
    for t, *rest in tags: rows[t] = tuple(rest)
    at = 8 + 2 + 12*len(rows) + 4; places = dict(many=at, format=at + len(many), data=at + 2*len(many))
    ifd = struct.pack(order + 'H', len(rows))
    for t, (kind_, count, value) in sorted(rows.items()):
        value = places.get(value, value) if isinstance(value, str) else value
        if n == 2 and t == 339: value = fmt | fmt << 16
        field = struct.pack(order + 'I', value) if kind_ != 3 or count > 2 else struct.pack(order + 'H', value & 0xffff) + struct.pack(order + 'H', value >> 16)
        ifd += struct.pack(order + 'HHI', t, kind_, count) + field
    return ((b'II*\0' if order == '<' else b'MM\0*') + struct.pack(order + 'I', 8) + ifd + struct.pack(order + 'I', end) + many
            + struct.pack(order + f'{n}H', *[fmt]*n) + bytes(8) + raw)

def saved(im, fmt, **kw): f = io.BytesIO(); im.save(f, fmt, **kw); return f.getvalue()
def tif(a, **kw): f = io.BytesIO(); tifffile.imwrite(f, a, **{'photometric': 'rgb' if a.ndim == 3 else 'minisblack', **kw}); return f.getvalue()
def exif(how): e = Image.Exif(); e[0x0112] = how; return e.tobytes()
UPRIGHT = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1], 5: lambda a: a.swapaxes(0, 1),
           6: lambda a: a.swapaxes(0, 1)[:, ::-1], 7: lambda a: a.swapaxes(0, 1)[::-1, ::-1], 8: lambda a: a.swapaxes(0, 1)[::-1]}


# sound files, some of them odd ------------------------------------------------------------------------------------------------

@family
def png_odd(g):
    "Every depth, colour type and order that PNG knows, and the chunks that people put into it"
    colour, bits = pick(g, (0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16))
    v = draw(g, bits, {2: 3, 4: 2, 6: 4}.get(colour, 0)); more = b''
    if colour == 3: pal = draw(g, 8, 3, (1, 2**bits))[0]; want, more = pal[v], chunk(b'PLTE', pal.tobytes())
    else: want = full(v if v.ndim == 2 else v[..., :3] if v.shape[2] > 2 else v[..., 0], bits)
    if g.random() < .3: more += chunk(b'tRNS', {0: b'\0\1', 2: b'\0\1\0\1\0\1', 3: b'\x80\0'}[colour]) if colour in (0, 2, 3) else b''
    first = pick(g, b'', b'', chunk(b'gAMA', struct.pack('>I', 45455)), chunk(b'pHYs', struct.pack('>IIB', 0, 2**31, 1)), chunk(b'tEXt', b'Patient\0Nobody'),
                 chunk(b'prVt', bytes(99)))
    return Case('a.png', png(v, bits, colour, int(g.integers(2)), first + more, pick(g, b'', chunk(b'tIME', bytes(7))), g=g), want, 'read')

@family
def tiff_odd(g):
    "Depths from 1 to 64 bits, both byte orders, black or white as zero, alpha, and kinds that are refused"
    order, zip = pick(g, '<', '>'), g.random() < .5
    what = pick(g, 'grey', 'grey', 'grey', 'white', 'rgb', 'rgb', 'alpha', 'wide', 'strange')
    if what in ('grey', 'white'):
        bits = pick(g, 1, 2, 4, 8, 10, 12, 14, 16); v = draw(g, bits); top = 255 if bits <= 8 else 65535; want = full(v, bits)
        return Case('a.tif', tiff(v, bits, what != 'white', zip, order=order), want if what == 'grey' else top - want, 'read')
    if what in ('rgb', 'alpha'):
        bits, n = pick(g, 8, 16), 3 + (what == 'alpha'); v = draw(g, bits, n)
        return Case('a.tif', tiff(v, bits, 2, zip, [(338, 3, 1, 2)] if n == 4 else [], order=order), v[..., :3], 'read')
    if what == 'wide':                        # whole numbers that are neither 8 nor 16 bits, with or without a sign, and complex ones
        bits, fmt = pick(g, (32, 1), (32, 2), (64, 1), (64, 2), (16, 2), (64, 6)); v = g.integers(0, 99, size_of(g)).astype(f'u{bits//8}')
        return Case('a.tif', tiff(v, bits, 1, zip, order=order, fmt=fmt), None, 'refuse')
    bits = pick(g, 3, 5, 6, 7, 9, 11, 13, 15, 24, 31, 48, 0, 65535); kind = pick(g, 1, 3, 4, 5, 6, 8, 9, 32803, 34892, 65535); h, w = size_of(g)
    return Case('a.tif', tiff(np.zeros((h, w), np.uint8), bits, kind, zip, order=order, data=g.bytes(h*w*8)))

OME = ('<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="Image:0"><Pixels DimensionOrder="XYCZT" '
       'SizeC="1" SizeT="1" SizeX="9" SizeY="9" SizeZ="99" Type="uint8">'
       '<TiffData><UUID FileName="../../other.tif">urn:uuid:0</UUID></TiffData></Pixels></Image></OME>')

@family
def tiff_plain(g):
    "What a good writer of TIFF makes"
    bits, n = pick(g, 8, 16), pick(g, 0, 3); v = draw(g, bits, n, tuple(int(k) for k in g.integers(16, 60, 2)))
    how = pick(g, {}, dict(compression='zlib'), dict(compression='zlib', predictor=True), dict(compression='lzw'), dict(compression='packbits'),
               dict(tile=(16, 16)), dict(bigtiff=True), dict(byteorder='>'), dict(rowsperstrip=3),
               dict(compression='lzma'), dict(compression='zstd'),
               dict(imagej=n == 0 or bits == 8),
               dict(description='{"Patient": "Nobody"}\n'*9), dict(planarconfig='separate') if n else {},
               dict(description=OME, metadata=None), dict(compression='jpeg2000'))
    data = np.moveaxis(v, -1, 0) if 'planarconfig' in how else v
    return Case(pick(g, 'a.tif', 'a.TIFF'), tif(data, **how), v, 'read')

@family
def tiff_float(g):
    "Numbers with a point: in [0, 1] as they are; NaN, infinite and other ranges are refused"
    v = g.random(pick(g, size_of(g), (*size_of(g), 3))).astype(pick(g, np.float16, np.float32, np.float64)); bad = g.random() < .6
    where = tuple(int(g.integers(n)) for n in v.shape)
    if bad: v[where] = pick(g, np.nan, np.inf, -np.inf, -1e-3, 1.01, 255, -0.0 - 1e-9)
    return Case('a.tif', tif(v, byteorder=pick(g, '<', '>')), None if bad else v.astype(np.float32), 'refuse' if bad and not (0 <= v[where] <= 1) else 'read')

@family
def jpeg(g):
    "Grey, colour, four inks, in one go or several, with every subsampling"
    x = smooth(g, pick(g, 1, 3)); im = Image.fromarray(x)
    if x.ndim == 3 and g.random() < .3: im = im.convert('CMYK')
    how = dict(progressive=bool(g.integers(2)), subsampling=int(g.integers(3)), optimize=bool(g.integers(2)))
    return Case(pick(g, 'a.jpg', 'a.JPEG'), saved(im, 'JPEG', quality=95, **how), x, 'read', True)

@family
def webp(g):
    a, x = draw(g, 8, pick(g, 3, 4)), smooth(g)
    if g.random() < .6: return Case('a.webp', saved(Image.fromarray(a), 'WEBP', lossless=True, exact=True), a[..., :3], 'read')
    return Case('a.webp', saved(Image.fromarray(x), 'WEBP', quality=95), x, 'read', True)

@family
def bmp(g):
    "1, 4, 8, 16, 24 and 32 bits, upside down or not"
    bits = pick(g, 1, 4, 8, 24, 32, 16); h, w = size_of(g); down = g.random() < .3
    v = draw(g, min(bits, 8), {24: 3, 32: 4, 16: 2}.get(bits, 0), (h, w)); pal = b''
    if bits <= 8: p = draw(g, 8, 3, (1, 2**bits))[0]; want, pal = p[v], np.concatenate([p[:, ::-1], np.zeros((len(p), 1), np.uint8)], 1).tobytes()
    elif bits == 16: x = v.view('<u2')[..., 0]; want = np.stack([full((x >> s & 31).astype(np.uint8), 5) for s in (10, 5, 0)], -1)
    else: want = v[..., 2::-1]
    rows = packed(v, min(bits, 8)); rows = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4)))
    raw = (rows if down else rows[::-1]).tobytes()
    head = struct.pack('<IiiHHIIiiII', 40, w, -h if down else h, 1, bits, 0, len(raw), 0, 0, 0, 0)
    return Case('a.bmp', b'BM' + struct.pack('<IHHI', 54 + len(pal) + len(raw), 0, 0, 54 + len(pal)) + head + pal + raw, want, 'read', bits == 16)

@family
def gif(g):
    v, pal = draw(g, 8, 0), draw(g, 8, 3, (1, 256))[0]
    im = Image.fromarray(v, 'P'); im.putpalette(pal.tobytes())
    how = pick(g, {}, dict(transparency=3), dict(comment=b'x'*300))
    return Case('a.gif', saved(im, 'GIF', optimize=False, interlace=int(g.integers(2)), **how), pal[v], 'read')

@family
def pnm(g):
    "The six kinds of PNM, with comments and any largest value; colour deeper than 8 bits is refused"
    kind = int(g.integers(1, 7)); top = 1 if kind in (1, 4) else pick(g, 255, 255, 100, 15, 1023, 4095, 65535); deep = top > 255
    v = g.integers(0, top + 1, (*size_of(g), 3) if kind in (3, 6) else size_of(g)).astype(np.uint16); h, w = v.shape[:2]
    head = b'P%d\n%s%d %d\n' % (kind, pick(g, b'', b'# by nobody\n'), w, h) + (b'%d\n' % top if kind not in (1, 4) else b'')
    if kind < 4: body = b'\n'.join(b' '.join(b'%d' % x for x in row) for row in v.reshape(h, -1)) + b'\n'
    else: body = packed(v, 1).tobytes() if kind == 4 else v.astype('>u2' if deep else np.uint8).tobytes()
    if kind in (1, 4): return Case('a.pgm', head + body, 255 - 255*v.astype(np.uint8), 'read')
    if deep and kind in (3, 6): return Case('a.ppm', head + body, None, 'refuse')
    want = np.rint(v*((65535 if deep else 255)/top)).astype(np.uint16 if deep else np.uint8)
    return Case('a.pgm' if kind in (2, 5) else 'a.ppm', head + body, want, 'read', top not in (255, 65535))

@family
def turned(g):
    "Every orientation of EXIF and TIFF, and orientations that there are not"
    how = int(g.integers(1, 9)) if g.random() < .7 else pick(g, 0, 9, 255, 65535); fmt = pick(g, 'PNG', 'WEBP', 'TIFF', 'DEEP', 'JPEG', 'PNG16')
    up = lambda a: np.ascontiguousarray(UPRIGHT.get(how, UPRIGHT[1])(a))
    if fmt == 'JPEG': x = smooth(g); return Case('a.jpg', saved(Image.fromarray(x), 'JPEG', quality=95, exif=exif(how)), up(x), 'read', True)
    x = draw(g, 16 if fmt in ('DEEP', 'PNG16') else 8, 3)
    if fmt in ('TIFF', 'DEEP'): return Case('a.tif', tif(x, extratags=[(274, 'H', 1, how, True)]), up(x), 'read')
    if fmt == 'PNG16': return Case('a.png', png(x, 16, 2, before=chunk(b'eXIf', exif(how)[6:])), up(x), 'read')
    return Case(f'a.{fmt.lower()}', saved(Image.fromarray(x), fmt, exif=exif(how), **(dict(lossless=True) if fmt == 'WEBP' else {})), up(x), 'read')

@family
def broken_exif(g):
    "Pixels are whole, and the block of words beside them is not: they are read, as they lie"
    good = exif(6)
    block = pick(g, b'Exif\0\0', b'Exif\0\0' + g.bytes(40), good[:int(g.integers(7, len(good)))], b'Exif\0\0II*\0\xff\xff\xff\x7f',
                 good[:6] + b'II*\0\x08\0\0\0\xff\xff' + g.bytes(30), b'Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x04abc\0\0\0\0\0',
                 b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x05\0\x01\0\0\0\x00\xff\xff\xff\0\0\0\0',
                 b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x02\0\0\0\x06\0\x03\0\0\0\0\0',
                 b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\xff\xff\xff\x06\0\0\0\0\0\0\0')
    fmt = pick(g, 'JPEG', 'PNG', 'WEBP', 'PNG16'); x = smooth(g)
    if fmt == 'JPEG': return Case('a.jpg', saved(Image.fromarray(x), 'JPEG', quality=95, exif=block), None, 'read')
    if fmt == 'WEBP': return Case('a.webp', saved(Image.fromarray(x), 'WEBP', lossless=True, exif=block), None, 'read')
    v = draw(g, 16 if fmt == 'PNG16' else 8, 3); return Case('a.png', png(v, 16 if fmt == 'PNG16' else 8, 2, before=chunk(b'eXIf', block[6:])), None, 'read')

@family
def frames(g):
    "More than one picture in a file: refused, but for the small copy in a camera's"
    fmt, n = pick(g, 'GIF', 'WEBP', 'PNG', 'TIFF', 'MPO'), int(g.integers(2, 6)); ims = [Image.fromarray(draw(g, 8, 3, (20, 30))) for _ in range(n)]
    if fmt == 'MPO':
        x = smooth(g); more = dict(save_all=True, append_images=[Image.fromarray(x[::4, ::4])], quality=95)
        return Case('a.jpg', saved(Image.fromarray(x), 'MPO', **more), x, 'read', True)
    return Case(f'a.{fmt.lower()}', saved(ims[0], fmt, save_all=True, append_images=ims[1:]), None, 'refuse')

@family
def no_size(g):
    "0 x N and N x 0, in every format that can say so"
    n = int(g.integers(0, 99)); h, w = pick(g, (0, n), (n, 0))
    deep, rgb, screen = draw(g, 16, 0, (3, 3)), draw(g, 8, 3, (3, 3)), struct.pack('<HH', w, h)
    data = {'png': png(rgb, 8, 2, size=(h, w)), 'tif': tiff(deep, 16, size=(h, w)), 'tiff': tiff(rgb, 8, 2, size=(h, w)),
            'pgm': b'P5 %d %d 255\n' % (w, h) + bytes(99), 'gif': b'GIF89a' + screen + bytes(3) + b',' + bytes(4) + screen + b'\0\2\2D\1\0;',
            'bmp': b'BM' + struct.pack('<IHHIIiiHHIIiiII', 99, 0, 0, 54, 40, w, h, 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99)}
    name = pick(g, *data); return Case(f'a.{name}', data[name], None, 'refuse')


# broken files -----------------------------------------------------------------------------------------------------------------

SOUND = (png_odd, tiff_odd, tiff_plain, tiff_float, jpeg, webp, bmp, gif, pnm, turned)
def sound(g):
    while True:
        c = pick(g, *SOUND)(g)
        if c.rule == 'read': return c

@family
def cut(g):
    "The beginning of a file: what is read of it is right, or it is refused"
    c = sound(g); return c._replace(data=c.data[:int(g.integers(0, len(c.data)))], rule='any')

@family
def cut2(g): return cut(g)

@family
def flipped(g):
    "Some bits of a sound file are others: the pixels may be, their kind may not"
    c = sound(g); b = bytearray(c.data)
    for _ in range(pick(g, 1, 1, 2, 8, 40)): k = int(g.integers(min(len(b), pick(g, 64, 256, len(b))))); b[k] ^= 1 << int(g.integers(8))
    return c._replace(data=bytes(b), want=None, rule='any')

@family
def flipped2(g): return flipped(g)

@family
def spliced(g):
    "A piece is missing, doubled, zero, or another file's"
    c, other = sound(g), sound(g).data; a, b = sorted(int(n) for n in g.integers(0, len(c.data), 2)); d = c.data
    data = pick(g, d[:a] + d[b:], d[:b] + d[a:], d[:a] + bytes(b - a) + d[b:], d[:a] + other[a:], d[:a] + g.bytes(b - a) + d[b:])
    return c._replace(data=data, want=None, rule='any')

MAGIC = [b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff\xe0', b'GIF89a', b'BM', b'II*\0', b'MM\0*', b'II+\0', b'RIFF\0\0\0\0WEBP', b'P5\n', b'P6 ', b'P7\n', b'Pf\n',
         b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n', b'%PDF-1.7\n', b'8BPS\0\1', b'\0\0\1\0\1\0', b'icns\0\0\0\x20',        # not ours
         b'SIMPLE  =', b'\x89HDF\r\n\x1a\n', b'\x7fELF', b'PK\3\4', b'\x1f\x8b\x08', b'\x80\4\x95', b'<svg ', b'\x01\xda', b'\x59\xa6\x6a\x95',
         b'\xd7\xcd\xc6\x9a',
         b'\0\0\0\x0cjP  \r\n\x87\n', b'\xff\x4f\xff\x51',
         b'DDS ', b'qoif', b'\0\0\0\x1cftypavif', b'/* XPM */', b'#define a_width 9\n#define a_height 9\n']

@family
def garbage(g):
    "No image: nothing, zeros, noise, text, the first bytes of any format before noise"
    data = pick(g, b'', bytes(int(g.integers(1, 4096))), g.bytes(int(g.integers(1, 4096))), b'patient;eye\n1;left\n', b'<!DOCTYPE html><html>log in</html>',
                *[MAGIC[int(g.integers(len(MAGIC)))] + pick(g, b'', bytes(99), g.bytes(int(g.integers(1, 999)))) for _ in range(9)])
    suffix = pick(g, '.png', '.jpg', '.tif', '.bmp', '.gif', '.webp', '.ppm', '.pgm', '.TIFF')
    return Case('a' + suffix, data, None, 'any' if data[:2] in (b'BM', b'P5', b'P6', b'Pf') else 'refuse')

@family
def postscript(g):
    "A program in place of a picture: never run, whatever it is called"
    program = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\n0 0 20 20 rectfill\nshowpage\n%%EOF\n'
    return Case('a' + pick(g, '.png', '.jpg', '.tif'), program, None, 'refuse')

@family
def bomb(g):
    "Little bytes that say they are many"
    n = pick(g, 20_000, 60_000, 65_535, 2**31 - 1, 2**32 - 1); one = draw(g, 8, 3, (1, 1)); grey = draw(g, 16, 0, (1, 1))
    screen = struct.pack('<HH', min(n, 65535), min(n, 65535)); gifs = b'GIF89a' + screen + b'\x80\0\0' + bytes(6) + b',' + bytes(4) + screen + b'\0\2\2D\1\0;'
    vp8l = b'\x2f' + struct.pack('<I', 16383 | 16383 << 14) + bytes(40)
    data = {'png': png(one, 8, 2, size=(n, n)), 'deep.png': png(draw(g, 16, 3, (1, 1)), 16, 2, size=(n, n)), 'grey.png': png(one[..., 0], 8, 0, size=(n, n)),
            'tif': tiff(one, 8, 2, True, size=(n, n)), 'deep.tif': tiff(grey, 16, 1, True, size=(n, n)), 'raw.tif': tiff(grey, 16, 1, size=(n, n)),
            'float.tif': tiff(np.ones((1, 1), np.float32), 32, 1, True, fmt=3, size=(n, n)), '1 bit.tif': tiff(grey & 1, 1, 1, True, size=(n, n)),
            'gif': gifs, 'webp': b'RIFF' + struct.pack('<I', 12 + len(vp8l)) + b'WEBPVP8L' + struct.pack('<I', len(vp8l)) + vp8l,
            'bmp': b'BM' + struct.pack('<IHHIIiiHHIIiiII', 99, 0, 0, 54, 40, min(n, 2**31 - 1), min(n, 65535), 1, 24, 0, 0, 0, 0, 0, 0) + bytes(99),
            'pgm': b'P5 %d %d 255\n' % (n, n) + bytes(99), 'text.pgm': b'P2 %d %d 255\n' % (n, n) + b'1 '*99,
            'tile.tif': tiff(grey, 16, 1, True, size=(n, n), tags=[(322, 4, 1, n), (323, 4, 1, n)]),
            'one tile.tif': tiff(grey, 16, 1, True, tags=[(322, 4, 1, n), (323, 4, 1, n), (324, 4, 1, 'data'), (325, 4, 1, 9)]),
            'many.tif': tiff(grey, 16, tags=[(273, 4, 2**32 - 1, 8), (279, 4, 2**32 - 1, 8)]),
            'samples.tif': tiff(grey, 16, tags=[(277, 3, 1, 65535)]), 'self.tif': tiff(grey, 16, end=8), 'beyond.tif': tiff(grey, 16, end=2**31),
            'long.tif': tiff(grey, 16, tags=[(270, 2, 2**31, 8)])}
    name = pick(g, *data); rule = 'any' if name.split('.')[0] in ('many', 'long', 'self', 'beyond') else 'refuse'
    return Case(name if '.' in name else f'a.{name}', data[name], None, rule)

@family
def words_bomb(g):
    "A small picture with words that unpack to gigabytes, or a tail that never ends"
    v = draw(g, pick(g, 8, 16), 3, (5, 7)); bits = 8*v.dtype.itemsize; deep = zlib.compress(bytes(2**28), 9)
    if g.random() < .5:
        bad = pick(g, chunk(b'zTXt', b'Comment\0\0' + deep), chunk(b'iCCP', b'icc\0\0' + deep), chunk(b'iTXt', b'Comment\0\1\0\0\0' + deep))
        return Case('a.png', png(v, bits, 2, before=bad), v, 'any')
    data, name, want = pick(g, (png(v, bits, 2), 'a.png', v), (tif(v), 'a.tif', v), (saved(Image.fromarray(draw(g, 8, 0, (9, 9))), 'GIF')[:-1], 'a.gif', None),
                            (saved(Image.fromarray(draw(g, 8, 3, (9, 9))), 'WEBP', lossless=True), 'a.webp', None))
    def make(folder):                          # holes take no room on the disk
        with open(folder/name, 'wb') as f: f.write(data); f.truncate(2**36)
    return Case(name, make, want, 'any')


# names and things that are no files -------------------------------------------------------------------------------------------

@family
def names(g):
    "Names as they are, around good and bad files"
    v = draw(g, 8, 3); good = g.random() < .7
    name = pick(g, 'two\nlines.png', 'tab\tbell\a.png', '👁 right 👁️‍🗨️.png', '-rf.png', '--out.png', ' .png', 'a' + ' '*40 + '.png',
                'x'*251 + '.png', '眼'*83 + '.png',
                "quote's \"two\".png", '%s {0} $HOME `id`.png', 'back\\slash.png', 'CON.png', 'a.png.png', 'Ünï.PNG', os.fsdecode(b'latin \xe9\xff.png'),
                '\u202egnp.exe.png', 'null.png', '\r\x1b[31mred.png', 'a;b|c&d.png', '~.png', '*.png', '[1-9].png', '1²3.png', '٣.png', '9'*200 + '.png')
    return Case(name, png(v, 8, 2) if good else g.bytes(50), v if good else None, 'read' if good else 'refuse')

@family
def other_suffix(g):
    "What a file is, its first bytes say and not its name"
    c = sound(g); return c._replace(name='a' + pick(g, '.png', '.jpg', '.tif', '.bmp', '.gif', '.webp', '.pgm', '.ppm'))

@family
def no_file(g):
    "A folder, a pipe, a device, a socket, links to nowhere, to itself and in circles, what is gone, what may not be read"
    v = draw(g, 8, 3); data = png(v, 8, 2)
    def put(f): return lambda d: f(d/'a.png')
    def pair(p): p.symlink_to('b.png'); p.with_name('b.png').symlink_to('a.png')
    def socket(p):
        import socket
        with socket.socket(socket.AF_UNIX) as s:
            here = os.open(p.parent, os.O_RDONLY); s.bind(f'/proc/self/fd/{here}/a.png'); os.close(here)
    def far(p): (p.parent.parent/'far.png').write_bytes(data); p.symlink_to('../far.png')
    def around(p): (p.parent/'around').symlink_to('.'); p.write_bytes(data)
    def locked(p): p.write_bytes(data); p.chmod(0)
    make, rule, listed = pick(g, (lambda p: p.mkdir(), 'refuse', 0), (os.mkfifo, 'refuse', 0), (lambda p: p.symlink_to('/dev/zero'), 'refuse', 0),
                              (lambda p: p.symlink_to('/dev/stdin'), 'refuse', 0), (lambda p: p.symlink_to('nothing'), 'refuse', 0),
                              (lambda p: p.symlink_to('a.png'), 'refuse', 0), (pair, 'refuse', 0), (lambda p: p.symlink_to('.'), 'refuse', 0),
                              (socket, 'refuse', 0), (far, 'read', 1), (around, 'read', 1),
                              (lambda p: p.symlink_to('/proc/self/mem'), 'refuse', 1), (lambda p: p.symlink_to('/proc/self/pagemap'), 'refuse', 1),
                              (locked, 'poor', 1), ('drop', 'refuse', 1))
    if make == 'drop': return Case('a.png', data, None, 'refuse', drop=True)
    return Case('a.png', put(make), v if rule == 'read' else None, 'refuse' if rule == 'poor' else rule, listed=bool(listed), poor=rule == 'poor')


# medical files: frames, and stored numbers that must come back -------------------------------------------------------------------

def optional(*modules): return family if all(importlib.util.find_spec(m) for m in modules) else lambda f: f
NAME = 'DOE^JANE'                             # of a patient, who is never quoted
LONG = ('OB', 'OW', 'OF', 'SQ', 'UN', 'UT')   # types whose length takes four bytes
IMPLICIT, EXPLICIT, DEFLATED, BIG = (f'1.2.840.10008.1.2{s}' for s in ('', '.1', '.1.99', '.2'))
RUNS, JPEG, JPEG_LS, JPEG_2000 = (f'1.2.840.10008.1.2.{s}' for s in ('5', '4.50', '4.80', '4.90'))

def elements(ds, implicit=False, order='<'):
    "Bytes of {number: (type, value)}; a value is text, bytes, a whole number, a list of these, or in a sequence a list of such dictionaries"
    out = b''
    for tag, (vr, v) in sorted(ds.items()):
        if vr == 'SQ' and not isinstance(v, bytes):
            items = [elements(d, implicit, order) for d in v]
            v = b''.join(struct.pack(order + 'HHI', 0xFFFE, 0xE000, len(b)) + b for b in items)
        elif not isinstance(v, bytes):
            v = v if isinstance(v, list) else [v]
            v = b''.join(struct.pack(order + ('h' if n < 0 else 'H'), n) for n in v) if vr in ('US', 'SS') else '\\'.join(map(str, v)).encode()
        length = len(v) + len(v) % 2; v = v.ljust(length, b'\0' if vr in ('UI', *LONG) else b' ')
        if 0x7FE00010 == tag and v[:4] == b'\xfe\xff\0\xe0': length = 2**32 - 1                        # in boxes
        head = struct.pack(order + 'HH', tag >> 16, tag & 0xFFFF)
        out += head + (struct.pack(order + 'I', length) if implicit else vr.encode() + (bytes(2) + struct.pack(order + 'I', length) if vr in LONG else
                                                                                     struct.pack(order + 'H', length))) + v
    return out

def dcm(ds, syntax=EXPLICIT, mark=True):
    "A DICOM file"
    body = elements(ds, syntax == IMPLICIT, '>' if syntax == BIG else '<')
    if syntax == DEFLATED: zip = zlib.compressobj(9, zlib.DEFLATED, -15); body = zip.compress(body) + zip.flush()
    meta = elements({0x00020002: ('UI', '1.2.840.10008.5.1.4.1.1.7'), 0x00020003: ('UI', '1.2.3.4'), 0x00020010: ('UI', syntax)})
    return (bytes(128) + b'DICM' + elements({0x00020000: ('UL', struct.pack('<I', len(meta)))}) + meta if mark else b'') + body

def boxes(g, *frames):
    "Compressed frames as a DICOM file holds them, with or without a table, each in one piece or in two"
    item = lambda b: struct.pack('<HHI', 0xFFFE, 0xE000, len(b) + len(b) % 2) + b + b'\0'*(len(b) % 2)
    parts = []; parted = frames and frames[0][:1] == b'\xff' and g.random() < .3                                    # run lengths come in one piece
    for f in frames: half = len(f)//4*2; parts.append(item(f[:half]) + item(f[half:]) if parted and half else item(f))
    table = np.cumsum([0, *map(len, parts)])[:-1].astype('<u4').tobytes() if g.random() < .5 else b''
    return item(table) + b''.join(parts) + struct.pack('<HHI', 0xFFFE, 0xE0DD, 0)

def runs(planes):
    "Run lengths as DICOM has them, without any run"
    bits = [b''.join(bytes([len(p[k:k + 128]) - 1]) + p[k:k + 128] for k in range(0, len(p), 128)) for p in planes]
    bits = [b + b'\0'*(len(b) % 2) for b in bits]
    return struct.pack('<16I', len(bits), *(64 + sum(map(len, bits[:k])) for k in range(len(bits))), *[0]*(15 - len(bits))) + b''.join(bits)

def header(h, w, bits, alloc, high=None, signed=0, pi='MONOCHROME2', samples=1, n=1):
    ds = {0x00080016: ('UI', '1.2.840.10008.5.1.4.1.1.7'), 0x00080018: ('UI', '1.2.3.4'), 0x00080060: ('CS', 'OT'), 0x00100010: ('PN', NAME),
          0x00100020: ('LO', 'ID-4711'), 0x0020000D: ('UI', '1.2.3'), 0x0020000E: ('UI', '1.2.3.1'), 0x00280002: ('US', samples), 0x00280004: ('CS', pi),
          0x00280010: ('US', h), 0x00280011: ('US', w), 0x00280100: ('US', alloc), 0x00280101: ('US', bits),
          0x00280102: ('US', bits - 1 if high is None else high),
          0x00280103: ('US', signed)}
    if n > 1: ds[0x00280008] = ('IS', n)
    if samples > 1: ds[0x00280006] = ('US', 0)
    return ds

def on_screen(v, bits, low, pi='MONOCHROME2', slope=None, inter=None, centre=None, width=None):
    "What is to be seen of the stored values `v`, by the words of the standard; the range of the values where there is no window of use"
    s = np.arange(low, low + 2**bits).astype(float); table = None
    if centre is not None and width >= 1:
        x = s*(slope or 1) + (inter or 0) - centre + .5; table = np.clip(x/(width - 1) + .5, 0, 1) if width > 1 else (x > 0)*1.
        if table.min() == table.max(): table = None
    if table is None:
        lo, hi = (low, s[-1]) if bits == 8 or v.min() == v.max() else (int(v.min()), int(v.max()))
        table = np.clip((s - lo)/(hi - lo), 0, 1); table = 1 - table if slope is not None and slope < 0 else table
    table = 1 - table if pi == 'MONOCHROME1' else table; whole = table*(2**bits - 1)
    if bits in (8, 16) and np.abs(whole - np.rint(whole)).max() < 1e-3: table = np.rint(whole).astype(f'u{bits//8}')
    else: table = table.astype(np.float32)
    return table[v - low]

def small(g): return tuple(int(n) for n in g.integers(1, 24, 2)) if g.random() < .9 else pick(g, (1, 1), (1, 300), (200, 1))

ODDITIES = [{0x00090010: ('LO', 'NOBODY'), 0x00091001: ('UN', b'\xff'*31), 0x00091002: ('OB', bytes(500))},                              # private
            {0x00081140: ('SQ', [{0x00081150: ('UI', '1.2'), 0x00081140: ('SQ', [{}])}, {}])}, {0x00081140: ('SQ', [])},               # sequences in sequences
            {0x00281053: ('DS', 'x'), 0x00281050: ('DS', NAME), 0x00281051: ('DS', '')}, {0x00281050: ('DS', '5'), 0x00281051: ('DS', '0')},
            {0x00281050: ('DS', '5'), 0x00281051: ('DS', '-9')}, {0x00281050: ('DS', 'nan'), 0x00281051: ('DS', 'inf')},
            {0x00283010: ('SQ', [{0x00283002: ('US', [9, 0, 8]), 0x00283006: ('OW', bytes(6))}])}, {0x00283010: ('SQ', [{}])},        # a table too short, none
            {0x00283000: ('SQ', [{0x00283002: ('US', [0, 0, 0]), 0x00283006: ('OW', b'')}])}, {0x52009230: ('SQ', [{}])},
            {0x52009229: ('SQ', [{0x00289110: ('SQ', [])}]), 0x52009230: ('SQ', [])}, {0x00180040: ('IS', NAME), 0x00181063: ('DS', '0')},
            {0x00280030: ('DS', '0\\nan')}, {0x00200037: ('DS', 'a')}, {0x00080005: ('CS', 'NO SUCH')}, {0x00080008: ('CS', '')}]

@optional('pydicom')
def dicom_odd(g):
    "Depths, signs, byte orders, windows, palettes and colours, with private and strange elements beside: each is shown rightly, and comes back"
    syntax, n, (h, w) = pick(g, EXPLICIT, EXPLICIT, IMPLICIT, BIG, DEFLATED), pick(g, 1, 1, 1, 2, 3), small(g); order = '>' if syntax == BIG else '<'
    how, more = pick(g, 'grey', 'grey', 'grey', 'colour', 'palette'), pick(g, {}, pick(g, *ODDITIES)); same = None
    if how == 'grey':
        bits, alloc = pick(g, (8, 8), (8, 16), (10, 16), (12, 16), (12, 16), (14, 16), (16, 16), (16, 16), (5, 8)); signed = int(g.integers(2))
        low = -2**(bits - 1) if signed else 0; v = g.integers(low, low + 2**bits, (n, h, w)); shift = pick(g, 0, 0, alloc - bits)
        raw = ((v & 2**bits - 1) << shift).astype(f'u{alloc//8}')
        if g.random() < .2: raw |= (g.integers(0, 2**alloc, v.shape) & ~((2**bits - 1) << shift) & 2**alloc - 1).astype(raw.dtype)    # an overlay of old
        pi, slope, inter, centre, width = pick(g, 'MONOCHROME1', 'MONOCHROME2'), *pick(g, (None, None), (1, 0), (-2, 5), (.5, -1024), (-1, None)), None, None
        if g.random() < .6: centre, width = pick(g, (0, 0), (30, 1), (100, 50.5), (40, 400), (-600, 1500), (1e6, 2), (2**bits//2, 2**bits))
        ds = header(h, w, bits, alloc, bits - 1 + shift, signed, pi, 1, n)
        if slope is not None: ds[0x00281053] = 'DS', slope
        if inter is not None: ds[0x00281052] = 'DS', inter
        if centre is not None: ds |= {0x00281050: ('DS', [centre, 1]), 0x00281051: ('DS', [width, 1])}
        want = on_screen(v, bits, low, pi, slope, inter, centre, width); same = raw.astype(raw.dtype.newbyteorder(order)).tobytes()
        if any(t in more for t in (0x00281050, 0x00281053)): want = on_screen(v, bits, low, pi, None if 0x00281053 in more else slope, inter)
    elif how == 'colour':
        bits, planar = pick(g, 8, 8, 16), int(g.integers(2)); want = raw = g.integers(0, 2**bits, (n, h, w, 3)).astype(f'u{bits//8}')
        ds = header(h, w, bits, bits, pi='RGB', samples=3, n=n); ds[0x00280006] = 'US', planar
        same = (np.moveaxis(raw, -1, 1) if planar else raw).astype(raw.dtype.newbyteorder(order)).tobytes()
    else:
        bits = pick(g, 8, 16); raw, lut = draw(g, 8, size=(n*h, w)).reshape(n, h, w), g.integers(0, 2**bits, (3, 256)).astype(f'u{bits//8}')
        ds = header(h, w, 8, 8, pi='PALETTE COLOR', n=n); want = lut.T[raw]
        if bits == 16: lut[0, 0], want = 0x1234, want.copy(); want[raw == 0, 0] = 0x1234               # so that it is deep for sure
        if bits == 16 and not (raw == 0).any(): raw[0, 0, 0], want[0, 0, 0] = 0, lut[:, 0]
        for k in range(3): ds |= {0x00281101 + k: ('US', [256, 0, bits]), 0x00281201 + k: ('OW', lut[k].astype(lut.dtype.newbyteorder(order)).tobytes())}
        if bits == 8 and order == '>':
            for k in range(3): ds[0x00281201 + k] = 'OW', lut[k].view('<u2').astype('>u2').tobytes()
    data = raw.tobytes() if how == 'palette' else same
    ds[0x7FE00010] = 'OB' if raw.itemsize == 1 and syntax != IMPLICIT else 'OW', data
    return Case(pick(g, 'a.dcm', 'a.IMA', 'a.dicom') if syntax == DEFLATED or g.random() < .8 else pick(g, 'IM1', '1.2.840.113.7'),
                dcm(ds | {t: v for t, v in more.items() if how == 'grey' or t >> 16 != 0x28}, syntax), want, 'read', frames=True, same=same)

@optional('pydicom')
def dicom_wrong(g):
    "One thing is missing, or is what it cannot be"
    n, (h, w) = pick(g, 1, 3), small(g); v = g.integers(0, 4096, (n, h, w)).astype('<u2'); ds = header(h, w, 12, 16, n=n); ds[0x7FE00010] = 'OW', v.tobytes()
    spp, pi, many, rows, cols = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
    alloc, stored, high, sign = 0x00280100, 0x00280101, 0x00280102, 0x00280103
    us = lambda tag, *values: {tag: ('US', pick(g, *values))}; pal = header(h, w, 8, 8, pi='PALETTE COLOR', n=1)
    tables = lambda d, size: {t + k: x for k in range(3) for t, x in ((0x00281101, ('US', d)), (0x00281201, ('OW', bytes(size))))}
    change, rule = pick(g, ({0x7FE00010: None}, 'refuse'), ({rows: None}, 'refuse'), ({alloc: None}, 'refuse'), (us(rows, 0), 'refuse'),
        (us(rows, 65535), 'refuse'),
        (us(cols, h*w*n*4 + 1), 'refuse'), ({rows: ('US', 65535), cols: ('US', 65535), many: ('IS', 2**31 - 1)}, 'refuse'),
        (us(rows, 65535) | us(cols, 2700), 'refuse'), (us(alloc, 0, 1, 4, 12, 24, 32, 64, 65535), 'refuse'), (us(alloc, 8), 'refuse'),
        (us(stored, 17, 0, 65535), 'refuse'), (us(high, 16, 3, 65535), 'refuse'), (us(sign, 2, 65535), 'refuse'), (us(spp, 0, 2, 3, 4, 5, 65535), 'refuse'),
        ({pi: ('CS', pick(g, 'CMYK', NAME, 'RGB', 'HSV', 'YBR_FULL'))}, 'refuse'), ({pi: ('CS', '')}, 'read'), ({pi: None}, 'read'),
        ({many: ('IS', pick(g, n + 1, 10**6, 2**31 - 1, 2**31, -1, 'many', '1e9'))}, 'refuse'), ({many: ('IS', '0' if n == 1 else '1')}, 'read'),
        ({rows: ('LO', 'ten')}, 'refuse'), ({cols: ('US', b'\1')}, 'any'), ({rows: ('US', [h, h])}, 'any'),
        ({rows: ('FD', struct.pack('<d', np.nan))}, 'refuse'),
        ({0x7FE00010: ('OW', v.tobytes()[:-2])}, 'refuse'), ({0x7FE00010: ('OW', b'')}, 'refuse'), ({0x7FE00010: ('OW', v.tobytes() + bytes(2**12))}, 'read'),
        ({0x7FE00010: None, 0x7FE00008: ('OF', bytes(4*h*w*n))}, 'refuse'), (pal, 'refuse'), (pal | tables([256, 0, 8], 9), 'any'),
        (pal | tables([0, 0, 99], 0), 'refuse'), (pal | tables([3, 65535, 16], 6), 'any'), (pal | tables([256, 0], 256), 'refuse'),
        (pal | us(alloc, 16), 'refuse'),
        ({0x00281101: ('US', [256, 0, 8])}, 'read'), ({0x00280120: ('US', 0), 0x00280121: ('US', 4095)}, 'any'), ({0x00280120: ('US', 7)}, 'any'))
    ds = {t: x for t, x in (ds | change).items() if x is not None}; want = None
    if rule == 'read': want = on_screen(v[:1] if many in change else v, 12, 0)
    data = dcm(ds, pick(g, EXPLICIT, EXPLICIT, IMPLICIT, BIG) if rule == 'refuse' else EXPLICIT)
    # in the words before, instead: no such syntax, no syntax, a sequence that never ends, a length beyond the file
    if g.random() < .2:
        broken = pick(g, b'1.2.840.10008.1.9', b'1.2.840.10008.1.2.4.99\0', b'1.2.840.10008.5.1.4.1.1.7\0', NAME.encode())
        whole = dcm(header(h, w, 12, 16) | {0x7FE00010: ('OW', v.tobytes())})
        at = whole.index(b'\x08\0\x60\0CS'); sq = b'\x08\0\x40\x11SQ\0\0'
        data, rule, want = pick(g, (dcm(ds, broken.decode()), 'any', None), (dcm(ds, RUNS), 'any', None),
            (whole[:at] + sq + b'\xff'*4 + whole[at:], 'any', None),
                                (whole[:at] + sq + b'\xff\xff\xff\x7f' + whole[at:], 'any', None), (whole[:at] + sq + b'\x08\0\0\0' + whole[at:], 'any', None),
                                (whole[:at] + b'\x08\0\x60\0CS\xff\xff' + whole[at:], 'any', None))
    return Case('a.dcm', data, want, rule, frames=True)

@optional('pydicom')
def dicom_packed(g):
    "Compressed, in boxes; a third of the streams are damaged, are of another size, or are fewer than was said"
    import imagecodecs
    n, (h, w), how = pick(g, 1, 1, 2, 3), (int(g.integers(9, 40)), int(g.integers(9, 40))), pick(g, RUNS, RUNS, JPEG, JPEG_LS, JPEG_2000)
    bits = pick(g, 8, 8, 12, 16) if how != JPEG else 8
    colour = bits == 8 and g.random() < .3; v = g.integers(0, 2**bits, (n, h, w, 3) if colour else (n, h, w)).astype(np.uint8 if bits == 8 else '<u2')
    if how == JPEG: v = np.stack([np.resize(smooth(g, 3 if colour else 1), v.shape[1:]) for _ in range(n)])
    bad = pick(g, *['']*6, 'cut', 'cut', 'flip', 'size', 'fewer', 'noise', 'more')
    byte = lambda a: a.astype(np.uint8).tobytes()
    def code(a):
        if how == RUNS: return runs([byte(p) for p in (np.moveaxis(a, -1, 0) if colour else [a] if bits == 8 else [a >> 8, a & 255])])
        if how == JPEG: return saved(Image.fromarray(a), 'JPEG', quality=95, subsampling=0)
        return imagecodecs.jpegls_encode(a) if how == JPEG_LS else imagecodecs.jpeg2k_encode(a, level=0, codecformat='j2k', reversible=True, bitspersample=bits)
    coded = [code(a) for a in v]
    hit = int(g.integers(n)); b = coded[hit]
    if bad == 'cut': coded[hit] = b[:int(g.integers(len(b)))]
    if bad == 'flip': k = int(g.integers(len(b))); coded[hit] = b[:k] + bytes([b[k] ^ 1 << int(g.integers(8))]) + b[k + 1:]
    if bad == 'noise': coded[hit] = pick(g, b'', g.bytes(99), b'\xff\xd8\xff\xff', b'\xff\x4f\xff\x51' + bytes(60), bytes(64),
        struct.pack('<16I', 1, 2**31, *[0]*14), b)
    if bad == 'fewer': coded = coded[:-1]
    if bad == 'more': coded += coded[-1:]
    pi = 'MONOCHROME2' if not colour else 'YBR_FULL' if how == JPEG else 'YBR_RCT' if how == JPEG_2000 else 'RGB'
    ds = header(h + 3*(bad == 'size'), w, bits, 8 if bits == 8 else 16, pi=pi, samples=3 if colour else 1, n=n) | {0x7FE00010: ('OB', boxes(g, *coded))}
    want = v.astype(v.dtype.newbyteorder('=')) if colour else on_screen(v, bits, 0)
    data = dcm(ds, how); same = None
    if not bad and how != JPEG: same = v.tobytes()
    rule = 'read' if not bad else 'refuse' if bad in ('size', 'fewer') else 'any'
    return Case('a.dcm', data, want if bad in ('', 'cut') else None, rule, how == JPEG, frames=True, same=same)

@optional('pydicom')
def dicom_broken(g):
    "A piece of a sound file is missing or another: the pixels of what is read are right, where the header was not hit"
    return damaged(g, pick(g, dicom_odd, dicom_odd, dicom_packed))

def damaged(g, make):
    while (c := make(g)).rule != 'read': pass
    c = c._replace(name=c.name if c.name[0] == 'a' else 'a.dcm')        # without a name, only its mark tells what it is
    d, how = c.data, pick(g, 'cut', 'cut', 'flip', 'flip', 'flip', 'hole', 'splice'); a, b = sorted(int(k) for k in g.integers(0, len(d), 2))
    if how == 'cut': return c._replace(data=d[:a], rule='any', want=None, same=None, cut=c.want)
    if how == 'flip':
        e = bytearray(d)
        for _ in range(pick(g, 1, 1, 2, 8)): e[int(g.integers(min(len(d), pick(g, 200, 700, len(d)))))] ^= 1 << int(g.integers(8))
        d = bytes(e)
    else: d = d[:a] + (bytes(b - a) if how == 'hole' else b'') + d[b:]
    return c._replace(data=d, want=None, rule='any', same=None)

CODES = {2: 'u1', 4: 'i2', 8: 'i4', 16: 'f4', 64: 'f8', 256: 'i1', 512: 'u2', 768: 'u4', 1024: 'i8', 1280: 'u8'}

def nii(v, code, order='<', new=False, slope=0, inter=0, cal=(0, 0), rows=None, dims=None, bits=None, at=None, magic=None):
    "A NIfTI file; `dims`, `code`, `at`, `magic`: what it says instead of the truth"
    dims = list(dims if dims is not None else (v.ndim, *v.shape)); dims += [1]*(8 - len(dims)); bits = 8*v.itemsize if bits is None else bits
    rows = np.eye(4)[:3] if rows is None else rows
    if not new:
        at = 352 if at is None else at; magic = b'n+1\0' if magic is None else magic
        head = struct.pack(order + 'i10s18sihcB8h3f4h8f3fhBB4f2i80s24s2h6f12f16s4s', 348, b'', b'', 0, 0, b'r', 0, *dims, 0, 0, 0, 0, code, bits, 0, 1, 2, 3,
            4, 1, 1, 1, 1, at, slope, inter,
                           0, 0, 10, *cal[::-1], 0, 0, 0, 0, NAME.encode(), b'', 0, 1, *[0]*6, *np.ravel(rows), b'', magic)
    else:
        at = 544 if at is None else at; magic = b'n+2\0\r\n\x1a\n' if magic is None else magic
        head = struct.pack(order + 'i8s2h8q3d8dq2d2d2d2q80s24s2i6d12d2i16s', 540, magic, code, bits, *dims, 0, 0, 0, 1, 2, 3, 4, 1, 1, 1, 1, int(at), slope,
            inter, *cal[::-1], 0, 0, 0, 0,
                           NAME.encode(), b'', 0, 1, *[0]*6, *np.ravel(rows), 10, 0, b'') + struct.pack(order + 'iB15s', 0, 0, b'')
    return head + bytes(4) + v.astype(v.dtype.newbyteorder(order)).tobytes('F')

def gz(b): return gzip.compress(b, 1, mtime=0)

@optional('nibabel')
def nifti_odd(g):
    "Types, byte orders, axes from 2 to 7, every way to lie, slopes, ranges for display, NaN and infinite voxels"
    code = pick(g, *CODES); t = np.dtype(CODES[code])
    shape = tuple(int(k) for k in g.integers(1, 14, 2)) + pick(g, (), (3,), (3,), (2, 2), (2, 1, 2), (1, 1, 1, 1, 2))
    v = g.normal(50, 30, shape).clip(-100, 120).astype(t) if t.kind != 'u' else g.integers(0, min(2**(8*t.itemsize), 2**62), shape).astype(t)
    if t.kind == 'f' and g.random() < .6: v[g.random(shape) < .3] = pick(g, np.nan, np.nan, np.inf, -np.inf)
    if t.kind == 'f' and g.random() < .2: v[(0,)*v.ndim] = np.finfo(t).max; v[(-1,)*v.ndim] = np.finfo(t).min
    if g.random() < .1: v[...] = 7
    axes, signs = g.permutation(3), g.choice([-1., 1.], 3); rows = np.zeros((3, 4)); rows[axes, range(3)] = signs*2; rows[:, 3] = 5
    slope, inter = pick(g, (0, 0), (0, 0), (1, 0), (2.5, -7), (-2, 5), (np.nan, np.nan), (np.inf, 1))
    cal = pick(g, (0, 0), (0, 0), (10, 90), (90, 10), (np.nan, 4)); new = g.random() < .3
    data = nii(v, code, pick(g, '<', '>'), new, slope, inter, cal, rows); m = slope if np.isfinite(slope) and slope else 1.
    ok = np.isfinite(v); lo, hi = (float(v[ok].min()), float(v[ok].max())) if ok.any() else (0., 0.)
    if cal == (10, 90): lo, hi = sorted((c - inter*np.isfinite(inter) - 0)/m if np.isfinite(inter) else c/m for c in (np.float64(np.float32(10)), 90.))
    flat = v.reshape(*shape[:2], -1, order='F')[::-1 if signs[0] > 0 else 1, ::-1 if signs[1] > 0 else 1]
    frames = np.moveaxis(flat, -1, 0); frames = frames.swapaxes(1, 2) if axes[0] < axes[1] else frames      # the axis that is higher in a body stands
    if t.kind == 'u' and t.itemsize < 4 and (lo, hi) == (0, np.iinfo(t).max) and m > 0: want = np.ascontiguousarray(frames)
    else:
        half = np.clip(frames/2., lo/2, hi/2); y = (half - lo/2)/((hi/2 - lo/2) or 1.); y = 1 - y if m < 0 else y
        want = np.where(np.isnan(y), 0, y).astype(np.float32)
    zip = g.random() < .4; same = data[544 if new else 352:]
    return Case('a.nii.gz' if zip or g.random() < .1 else 'a.nii', gz(data) if zip else data, want, 'read', frames=True, same=same)

@optional('nibabel')
def nifti_wrong(g):
    "One field of the header is what it cannot be"
    v = g.integers(-9, 999, (5, 4, 3)).astype('<i2'); new = g.random() < .3; most = 2**62 if new else 32767
    how, rule = pick(g, (dict(dims=(3, 0, 4, 3)), 'refuse'), (dict(dims=(3, 5, 4, 0)), 'refuse'), (dict(dims=(3, -5, 4, 3)), 'refuse'),
        (dict(dims=(0, 5, 4, 3)), 'refuse'), (dict(dims=(1, 60)), 'refuse'),
        (dict(dims=(8, 5, 4, 3)), 'refuse'), (dict(dims=(-1, 5, 4, 3)), 'refuse'), (dict(dims=(99, 5, 4, 3)), 'any'),
        (dict(dims=(3, most, most, most)), 'refuse'), (dict(dims=(3, 5, 4, most)), 'refuse'),
        (dict(dims=(7, *[most]*7)), 'refuse'), (dict(dims=(3, 5, 4, 4)), 'refuse'), (dict(dims=(3, 5, 4, 2)), 'read'), (dict(dims=(2, 5, 4, 3)), 'read'),
        (dict(code=0), 'refuse'), (dict(code=1), 'refuse'), (dict(code=32), 'refuse'),
        (dict(code=1536), 'refuse'), (dict(code=99), 'refuse'), (dict(code=-1), 'refuse'), (dict(code=1792), 'refuse'), (dict(bits=3), 'any'),
        (dict(at=0), 'any'), (dict(at=2), 'refuse'), (dict(at=-400), 'refuse'),
        (dict(at=9e8), 'refuse'), (dict(at=1e30), 'refuse') if not new else (dict(at=2**62), 'refuse'),
        (dict(at=np.nan), 'refuse') if not new else (dict(at=-2**62), 'refuse'), (dict(magic=b'ni1\0' if not new else b'ni2\0\r\n\x1a\n'), 'refuse'),
        (dict(magic=b'abcd'), 'refuse'), (dict(magic=bytes(4)), 'refuse'), (dict(rows=np.zeros((3, 4))), 'read'), (dict(rows=np.full((3, 4), np.nan)), 'read'),
        (dict(rows=np.full((3, 4), np.inf)), 'read'),
        (dict(rows=np.array([[1, 1, 0, 0.], [1, 1, 0, 0], [0, 0, 1, 0]])), 'read'), (dict(rows=np.full((3, 4), 3e38)), 'read'),
        (dict(slope=1e-38, inter=3e38), 'read'), (dict(slope=-3e38, cal=(-3e38, 3e38)), 'read'), (dict(cal=(5, 5)), 'read'))
    data = nii(v, **({'code': 4, 'new': new} | how)); zip = g.random() < .4
    if g.random() < .2: data, rule = pick(g, (data[:int(g.integers(1, 352))], 'refuse'), (data[:-1], 'refuse'), (struct.pack('>i', 348) + data[4:], 'any'),
        (bytes(4) + data[4:], 'any'), (data[:44 if new else 346], 'refuse'))
    if zip:
        data = gz(data)
        if g.random() < .4: data, rule = pick(g, (data[:int(g.integers(1, len(data)))], 'refuse'), (data[:-8] + bytes(8), 'refuse'),
            (data[:10] + g.bytes(90), 'refuse'), (gz(bytes(352)), 'refuse'), (gz(gz(data)), 'refuse'), (data + data, 'any'))
    return Case('a.nii.gz' if zip else 'a.nii', data, None, rule, frames=True)

@optional('nibabel')
def nifti_broken(g): return damaged(g, nifti_odd)

def riff(kind, *parts): return kind + struct.pack('<I', sum(map(len, parts))) + b''.join(parts)

def avi(x, rate=25, code=b'\0\0\0\0', says=None, sound=False):
    "An uncompressed film: `x` n x h x w x 3; with `sound`, sound and no film"
    n, h, w = x.shape[:3]; rows = np.pad(x[:, ::-1, :, ::-1].reshape(n, h, 3*w), ((0, 0), (0, 0), (0, -3*w % 4))); says = says or (h, w, n)
    strh = struct.pack('<4s4sIHHIIIIIIIIhhhh', b'auds' if sound else b'vids', b'\0\0\0\0' if sound else b'DIB ', 0, 0, 0, 0, 1, 8000 if sound else rate, 0,
        says[2], h*w*3, 2**32 - 1, 0, 0, 0, w, h)
    strf = struct.pack('<HHIIHH', 1, 1, 8000, 8000, 1, 8) if sound else struct.pack('<IiiHH4sIIIII', 40, says[1], says[0], 1, 24, code, h*w*3, 0, 0, 0, 0)
    avih = struct.pack('<14I', 10**6//rate, 0, 0, 0x10, says[2], 0, 1, h*w*3, says[1] & 2**32 - 1, says[0] & 2**32 - 1, 0, 0, 0, 0)
    name = b'00wb' if sound else b'00db'; chunks = [riff(name, r.tobytes() + b'\0'*(r.size % 2)) for r in rows]
    idx, at = b'', 4
    for c in chunks: idx += struct.pack('<4sIII', name, 16, at, len(c) - 8); at += len(c)
    hdrl = riff(b'LIST', b'hdrl', riff(b'avih', avih), riff(b'LIST', b'strl', riff(b'strh', strh), riff(b'strf', strf)))
    return riff(b'RIFF', b'AVI ', hdrl, riff(b'LIST', b'movi', *chunks), riff(b'idx1', idx))

def film(x, name, codec, pix, rate=25, sound=False):
    "The bytes of a film by PyAV, the same each time"
    import av
    f = io.BytesIO(); kind = {'mkv': 'matroska', 'mp4': 'mp4', 'mov': 'mov', 'webm': 'webm', 'avi': 'avi'}[name]
    with av.open(f, 'w', format=kind, options={'fflags': 'bitexact'}) as c:
        if sound:
            codec, kind, t = ('pcm_s16le', 's16', np.int16) if name == 'mkv' else ('aac', 'fltp', np.float32)
            s = c.add_stream(codec, rate=16000); s.codec_context.layout = 'mono'; a = av.AudioFrame.from_ndarray(np.zeros((1, 4096), t), kind, 'mono')
            a.rate, a.pts = 16000, 0; c.mux([*s.encode(a), *s.encode(None)])
        else:
            s = c.add_stream(codec, rate=rate, options={'crf': '10', 'threads': '1'} if codec == 'libx264' else {}); s.height, s.width = x.shape[1:3]
            s.pix_fmt = pix
            seen = 'rgb24' if x.ndim == 4 else 'gray' if x.itemsize == 1 else 'gray16le'
            for a in x: c.mux(s.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(a), seen).reformat(format=pix)))
            c.mux(s.encode(None))
    return f.getvalue()

@optional('av')
def film_odd(g):
    "Containers and codecs, few frames and small ones"
    n, (h, w) = pick(g, 1, 2, 5, 12), (int(g.integers(2, 40)), int(g.integers(2, 40))); rgb = g.integers(0, 256, (n, h, w, 3)).astype(np.uint8)
    deep = g.integers(0, 65536, (n, h, w)).astype(np.uint16)
    how = pick(g, 'raw', 'raw', 'ffv1', 'grey', 'deep', 'h264')
    if how == 'raw': return Case('a.avi', avi(rgb, pick(g, 1, 25, 60)), rgb, 'read', frames=True)
    if how == 'ffv1': return Case('a.mkv', film(rgb, 'mkv', 'ffv1', 'bgr0'), rgb, 'read', frames=True)
    if how == 'grey': return Case('a.mkv', film(rgb[..., 0], 'mkv', 'ffv1', 'gray'), rgb[..., 0], 'read', frames=True)
    if how == 'deep': return Case('a.mkv', film(deep, 'mkv', 'ffv1', 'gray16le'), deep, 'read', frames=True)
    x = smooth(g)[:20, :20]; x = np.stack([np.roll(x, k, 0) for k in range(n)]); name = pick(g, 'mp4', 'mov', 'mkv')
    return Case(f'a.{name}', film(x, name, 'libx264', 'yuv444p'), x, 'read', True, frames=True)

@optional('av')
def film_wrong(g):
    "No film in it: sound alone, no frames, sizes that are none or too large, lists of other files, and what has only the name"
    x = g.integers(0, 256, (3, 9, 12, 3)).astype(np.uint8); whole = film(x, 'mkv', 'ffv1', 'bgr0')
    name, data, rule = pick(g, ('a.avi', avi(x, sound=True), 'refuse'), ('a.mkv', film(x, 'mkv', '', '', sound=True), 'refuse'),
        ('a.mp4', film(x, 'mp4', '', '', sound=True), 'refuse'),
        ('a.avi', avi(x[:0]), 'refuse'), ('a.mp4', b'\0\0\0\x14ftypisom\0\0\2\0isom', 'refuse'),
        ('a.mp4', b'\0\0\0\x14ftypisom\0\0\2\0isom\0\0\0\x08moov', 'refuse'),
        ('a.avi', avi(x, says=(0, 0, 3)), 'refuse'), ('a.avi', avi(x, says=(-9, 12, 3)), 'any'), ('a.avi', avi(x, says=(2**15, 2**15, 3)), 'refuse'),
        ('a.avi', avi(x, says=(9, 12, 10**6)), 'any'),
        ('a.avi', avi(x, says=(2**31 - 1, 2**31 - 1, 3)), 'refuse'), ('a.avi', avi(x, code=b'XVID'), 'any'), ('a.avi', avi(x, code=b'ZZZZ'), 'refuse'),
        ('a.mkv', whole[:4], 'refuse'), ('a.mkv', whole[:99], 'refuse'),
        ('a.webm', b'\x1aE\xdf\xa3' + g.bytes(400), 'refuse'), ('a.mp4', b'\0\0\0\x20ftypisom' + g.bytes(400), 'refuse'),
        ('a.avi', b'RIFF\xff\xff\xff\xffAVI ' + g.bytes(400), 'refuse'), ('a.mov', b'\0\0\0\x08wide', 'refuse'),
        ('a.mp4', b'#EXTM3U\nhttp://127.0.0.1:9/x.ts\n', 'refuse'), ('a.mkv', b"ffconcat version 1.0\nfile '/etc/passwd'\n", 'refuse'),
        ('a.avi', b'', 'refuse'), ('a.webm', bytes(999), 'refuse'), ('a.mov', g.bytes(999), 'refuse'),
        ('a.mp4', whole, 'read'), ('a.mkv', avi(x), 'read'), ('a.mp4', b'\0\0\0\0mdat' + bytes(400), 'refuse'),
        ('a.mov', b'\xff\xff\xff\xffmoov' + bytes(40), 'refuse'), ('a.mp4', b'\0\0\0\x1cftypheic' + g.bytes(80), 'refuse'))
    return Case(name, data, x if rule == 'read' else None, rule, frames=True)

@optional('av')
def film_broken(g): return damaged(g, film_odd)


# the judge --------------------------------------------------------------------------------------------------------------------

def case(seed, k, only=()):
    "(family, Case) number k"
    pool = [f for f in FAMILIES if not only or f in only]; name = pool[k % len(pool)]
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); return name, FAMILIES[name](np.random.default_rng([seed, k]))

def one_line(said, path):
    "What is wrong with the words of an error"
    plain = max(re.split(r'[^ -~]+', path.name), key=len); bad = []
    if len(said.splitlines()) != 1 or not said.isprintable(): bad.append(f'is not one line: {said!r}')
    if plain not in said: bad.append(f'does not name the file: {said!r}')
    if len(said) > 2*len(str(path)) + 300: bad.append(f'is {len(said)} characters long')
    return bad

def kind(img):
    "What is wrong with the kind of an image"
    ok = isinstance(img, np.ndarray) and img.dtype in (np.uint8, np.uint16, np.float32) and img.dtype.isnative and img.flags.c_contiguous and img.size
    ok = ok and (img.ndim == 2 or img.ndim == 3 and img.shape[2] == 3) and (img.dtype != np.float32 or 0 <= img.min() <= img.max() <= 1)
    return [] if ok else [f'gave {getattr(img, "dtype", type(img))} {getattr(img, "shape", "")}']

def differs(got, want, near, room=0):
    "What is wrong with pixels beside those that are known"
    if got.shape != want.shape or got.dtype != want.dtype: return [f'gave {got.dtype} {got.shape}, not {want.dtype} {want.shape}']
    if near: off = np.abs(got.astype(float) - want).mean()/np.iinfo(want.dtype).max; return [f'is off by {off:.3f}'] if off > .02 else []
    if want.dtype == np.float32 and room: off = np.abs(got - want).max(); return [f'is off by {off:.2g}'] if not off < room else []
    return [] if np.array_equal(got, want) else [f'differs in {(got != want).mean():.1%} of the values']

@contextlib.contextmanager
def as_poor(poor):
    "As a user who may nothing, where this one may all"
    change = poor and os.geteuid() == 0
    if change: os.seteuid(PEOPLE)
    try: yield
    finally:
        if change: os.seteuid(0)

def judge(c, d, enhancer, strength):
    "(outcome, what is wrong) of one case in an empty folder"
    if c.frames: return judge_document(c, d, enhancer, strength)
    from hqgnet_nb.core import ImageError, UserError, list_images, read_image
    src, out = d/'in', d/'out'; src.mkdir(); out.mkdir(); d.chmod(0o755); out.chmod(0o777); path = src/c.name; bad = []
    c.data(src) if callable(c.data) else path.write_bytes(c.data)
    if c.poor and os.geteuid() and os.access(path, os.R_OK): return 'skipped', []
    outcome, img = 'refused', None
    if not c.drop:
        try:
            with as_poor(c.poor): img = read_image(path)
            outcome = 'read'; bad += kind(img)
            if c.want is not None and not bad: bad += differs(img, c.want, c.near)
        except UserError as e:
            bad += [f'read_image: the error {w}' for w in one_line(str(e), path)]
            if not isinstance(e, ImageError): bad.append('read_image: no ImageError')
            outcome = f'refused: {e}'
        if c.rule != 'any' and (c.rule == 'read') != (img is not None): bad.append(f'read_image: should {c.rule}, {outcome}')
    (src/'0 neighbour.png').write_bytes(png(NEIGHBOUR, 8, 2))
    here = [p.name for p in list_images(src)]
    if (c.name in here) != c.listed: bad.append(f'list_images: {here}')
    def gone(plan):
        plan = list(plan)
        if c.drop: path.unlink()
        return plan
    with as_poor(c.poor): ok, failures = run_folder(enhancer, src, out, strength, gone)
    bad += [f'folder: the reason {said!r}' for _, said in failures if not str(said).isprintable() or len(str(said)) > 2*len(str(path)) + 300]
    if [Path(p).name for p, _ in failures] != ([c.name] if c.listed and img is None else []): bad.append(f'folder: failures {failures}, read_image: {outcome}')
    if ok != len(here) - len(failures): bad.append(f'folder: {ok} done of {len(here)}')
    images = {p.stem: p for p in out.iterdir() if p.suffix == '.png'}
    left = [p.name for p in out.iterdir() if p.name.startswith('.') and p.name not in ('.png',)]
    if left: bad.append(f'folder: left behind {left}')
    if set(images) != {Path(n).stem for n in here} - {Path(p).stem for p, _ in failures}: bad.append(f'folder: wrote {sorted(images)}')
    for name, want in ((c.name, img), ('0 neighbour.png', NEIGHBOUR)):
        if want is None or bad or name not in here: continue
        got = read_image(images[Path(name).stem]); want = want if want.dtype != np.float32 else np.rint(want*65535.).astype(np.uint16)
        if (got.shape, got.dtype) != (want.shape, want.dtype): bad.append(f'folder: {got.dtype} {got.shape} of {want.dtype} {want.shape}')
        if strength == 0 and not bad: bad += [f'folder: {w}' for w in differs(got, want, want.dtype == np.uint16)]
    return outcome, bad

def judge_document(c, d, enhancer, strength):
    "(outcome, what is wrong) of a file of frames, in an empty folder"
    from hqgnet_nb.batch import plan_outputs
    from hqgnet_nb.core import ImageError, UserError
    from hqgnet_nb.medical import list_documents, open_document
    src, out = d/'in', d/'out'; src.mkdir(); path = src/c.name; path.write_bytes(c.data); bad, outcome, x = [], 'refused', None
    def opened(p):
        with open_document(p) as doc:
            if doc.facts.get('colour') == 'PALETTE COLOR': doc.facts['depth'] = 8*doc.frame(0).itemsize           # not of the numbers of its colours
            few = [doc.frame(k) for k in range(min(doc.n, 99))]
            return np.stack(few), doc.facts, doc.n, doc.suffix, [w for f in few for w in kind(f)]
    try:
        x, facts, n, suffix, bad = opened(path); outcome = 'read'
        if facts['frames'] != n or n < 99 and len(x) != n: bad.append(f'{n} frames, and {facts["frames"]} by its facts')
        if c.want is not None and not bad: bad += differs(x, c.want, c.near, 1e-5)
        if c.cut is not None and not bad and len(x) <= len(c.cut): bad += [f'of the part that is left: {w}' for w in differs(x, c.cut[:len(x)], c.near, 1e-5)]
        if not bad:
            with open_document(path) as doc: doc.write(d/f'same{suffix}', doc)
            again, more, m, _, _ = opened(d/f'same{suffix}')
            if m != n or more['depth'] != facts['depth'] or again.shape != x.shape: bad.append(f'written again: {again.dtype} {again.shape}')
            elif facts['kind'] != 'video' or suffix == '.mkv': bad += [f'written again: {w}' for w in differs(again, x, False)]
            b = (d/f'same{suffix}').read_bytes(); b = gzip.decompress(b) if suffix == '.nii.gz' else b
            if c.same is not None and c.same not in b: bad.append('written again: the stored values are others')
    except UserError as e:
        bad += [f'open_document: the error {w}' for w in one_line(str(e), path)]; outcome = f'refused: {e}'; x = None
        if not isinstance(e, ImageError): bad.append('open_document: no ImageError')
        if list(d.glob('same*')): bad.append('half a file is left')
    if c.rule != 'any' and (c.rule == 'read') != (x is not None): bad.append(f'open_document: should {c.rule}, {outcome}')
    (src/'0 neighbour.png').write_bytes(png(NEIGHBOUR, 8, 2)); here = [p.name for p in list_documents(src)]
    if (c.name in here) != c.listed: bad.append(f'list_documents: {here}')
    plan = {f.name: to for f, to in plan_outputs(src, out)}; ok, failures = run_folder(enhancer, src, out, strength, iter)
    if [Path(p).name for p, _ in failures] != ([c.name] if x is None else []): bad.append(f'folder: failures {failures}, open_document: {outcome}')
    bad += [f'folder: the reason {said!r}' for _, said in failures if not said.isprintable() or len(said) > 2*len(str(path)) + 300]
    there = {p for p in out.iterdir() if p.suffix not in ('.json', '.jsonl', '.plan')}
    if there != {plan[k] for k in here} - {plan[Path(p).name] for p, _ in failures}: bad.append(f'folder: wrote {sorted(p.name for p in there)}')
    if x is not None and not bad:
        y, more, m, _, wrong = opened(plan[c.name]); bad += wrong
        if m != n or more['depth'] != facts['depth'] or y.shape != x.shape: bad.append(f'folder: {y.dtype} {y.shape}, {more["depth"]} bits')
        elif strength == 0 and (facts['kind'] != 'video' or suffix == '.mkv'): bad += [f'folder: {w}' for w in differs(y, x, False)]
    said = ' '.join([outcome, repr(facts if x is not None else ''), *bad, *(s for _, s in failures)])
    if NAME in said or 'ID-4711' in said: bad.append('quotes the patient')
    return outcome, bad

NEIGHBOUR = np.random.default_rng(0).integers(0, 256, (20, 24, 3)).astype(np.uint8)

def run_folder(enhancer, src, out, strength, wrap):
    "(number of files done, failures) of the run over a folder"
    from hqgnet_nb.batch import enhance_folder
    return enhance_folder(enhancer, src, out, strength, progress=wrap)

def make_enhancer():
    import torch; torch.set_num_threads(1); torch.manual_seed(0)
    from hqgnet_nb.enhance import Enhancer
    from hqgnet_nb.generator import HQGNet
    return Enhancer(HQGNet(3, (4, 4, 8, 8), (4, 4, 8, 8), z_dim=8, y_dim=4), 32, 'cpu')

def peak(reset=False):
    "Bytes of memory at most since the last time that it was asked to begin anew; 0 where this system does not say"
    with contextlib.suppress(OSError, AttributeError, TypeError):
        if reset: Path('/proc/self/clear_refs').write_text('5')
        return 1024*int(re.search(r'VmHWM:\s+(\d+)', Path('/proc/self/status').read_text())[1])
    return 0

def work(seed, todo, pipe, root, only, enhancer):
    "Go through cases and tell of each through the pipe; in a process of its own"
    say = lambda **m: os.write(pipe, (json.dumps(m) + '\n').encode())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    with contextlib.suppress(OSError, AttributeError, TypeError):
        used = 1024*int(re.search(r'VmSize:\s+(\d+)', Path('/proc/self/status').read_text())[1]); resource.setrlimit(resource.RLIMIT_AS, (used + 3*2**30,)*2)
    for k in todo:
        say(begin=k); name, c = case(seed, k, only); d = root/str(k); d.mkdir(); before, t = peak(True), time.time(); said = io.StringIO()
        try:
            with contextlib.redirect_stderr(said), warnings.catch_warnings(record=True) as w:
                warnings.simplefilter('always'); outcome, bad = judge(c, d, enhancer, float(k % 2))
        except Exception as e: outcome, bad, w = 'crashed', [f'{type(e).__name__}: {e}', traceback.format_exc()[-600:]], []
        took, more = time.time() - t, peak() - before
        if before and more > MEMORY: bad.append(f'took {more/2**20:.0f} MiB of memory')
        if w or said.getvalue(): outcome += f' [{"; ".join(str(x.message)[:60] for x in w)}{said.getvalue()[:80]}]'
        say(done=k, family=name, file=c.name[:40], outcome=outcome[:300], bad=bad, seconds=took, mib=round(more/2**20))
        if not bad: shutil.rmtree(d, ignore_errors=True)

def fuzz(n, seed=0, only=(), first=0, keep=None, show=None, seconds=SECONDS):
    "Every case's result: dict(done, family, file, outcome, bad, seconds, mib); `bad` is empty where all is well"
    root = Path(tempfile.mkdtemp(prefix='hqgnet_fuzz_', dir=keep)); root.chmod(0o755); todo, results = list(range(first, first + n)), []
    enhancer = make_enhancer()
    try:
        while todo:
            r, w = os.pipe(); pid = os.fork()
            if pid == 0:
                try: os.setpgrp(); os.close(r); work(seed, todo, w, root, only, enhancer)
                finally: os._exit(0)
            os.close(w); text, now, since = b'', None, time.time()
            while True:
                ready = select.select([r], [], [], 1)[0]; piece = os.read(r, 65536) if ready else None
                if piece:
                    text += piece; *lines, text = text.split(b'\n')
                    for m in map(json.loads, lines):
                        if 'begin' in m: now, since = m['begin'], time.time()
                        else: results.append(m); todo.remove(now); now = None; show and show(m)
                hang = now is not None and time.time() - since > seconds
                if hang: os.killpg(pid, signal.SIGKILL)
                if piece == b'' or hang: break
            os.close(r); _, status = os.waitpid(pid, 0)
            if now is not None:                               # it went no further
                name, c = case(seed, now, only)
                why = f'took over {seconds} s' if hang else f'the process died, status {status}'
                m = dict(done=now, family=name, file=c.name[:40], outcome='hung' if hang else 'died', bad=[why], seconds=time.time() - since, mib=0)
                results.append(m); todo.remove(now); show and show(m)
    finally:
        if not keep: shutil.rmtree(root, ignore_errors=True)
    return results

def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument('--n', type=int, default=1000); ap.add_argument('--seed', type=int, default=0); ap.add_argument('--only', default='')
    ap.add_argument('--case', type=int, help='this one alone'); ap.add_argument('--keep', help='folder in which the files of failures stay')
    ap.add_argument('--all', action='store_true', help='a line for every case')
    a = ap.parse_args(); only = [f for f in a.only.split(',') if f]
    def show(m):
        line = f"{m['done']:5d} {m['family']:12s} {m['file']!r} {m['seconds']:.2f} s {m['mib']} MiB {m['outcome']}"
        if m['bad'] or a.all or a.case is not None: print(line, *m['bad'], sep='\n        ', flush=True)
    t = time.time(); res = fuzz(1 if a.case is not None else a.n, a.seed, only, a.case or 0, a.keep, show)
    read, bad = sum(m['outcome'].startswith('read') for m in res), [m for m in res if m['bad']]
    print(f'{len(res)} cases, {read} read, {len(res) - read - len(bad)} refused, {len(bad)} wrong; '
          f'{time.time() - t:.0f} s, longest {max(m["seconds"] for m in res):.1f} s, '
          f'largest {max(m["mib"] for m in res)} MiB')
    return bool(bad)

if __name__ == '__main__': sys.exit(main())
