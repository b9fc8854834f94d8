"""Every kind of file that people have: what is read, what is refused and in which words; through the functions and through the command line."""
import contextlib, io, os, re, shutil, tempfile, warnings
from pathlib import Path
import imagecodecs, numpy as np, pytest, tifffile
from PIL import Image
from hqgnet_nb.core import ImageError, UserError, list_images, read_image, to_float, to_uint, write_image

GEN = np.random.default_rng(0)
GREY8, RGB8 = (GEN.integers(0, 256, s).astype(np.uint8) for s in ((40, 56), (40, 56, 3)))
GREY16, RGB16 = (GEN.integers(0, 65536, s).astype(np.uint16) for s in ((40, 56), (40, 56, 3)))
SMOOTH = np.stack([*np.meshgrid(np.linspace(20, 230, 56), np.linspace(40, 200, 40)), np.full((40, 56), 90.)], -1).astype(np.uint8)
PAL = Image.fromarray(RGB8).quantize(16)
FLOAT = GEN.random((40, 56, 3)).astype(np.float32)

def png(a): return imagecodecs.png_encode(a)
def saved(im, fmt, **kw): f = io.BytesIO(); im.save(f, fmt, **kw); return f.getvalue()
def tif(a, **kw): f = io.BytesIO(); tifffile.imwrite(f, a, **{'photometric': 'rgb' if a.ndim == 3 else 'minisblack', **kw}); return f.getvalue()
def alpha(a): return np.concatenate([a if a.ndim == 3 else a[..., None], GEN.integers(0, 2, (*a.shape[:2], 1)).astype(a.dtype)*np.iinfo(a.dtype).max], -1)
def turned(fmt, how=6): exif = Image.Exif(); exif[0x0112] = how; return saved(Image.fromarray(SMOOTH), fmt, exif=exif)
def ppm(a, kind): return b'%s %d %d %d\n' % (kind, a.shape[1], a.shape[0], np.iinfo(a.dtype).max) + a.astype(a.dtype.newbyteorder('>')).tobytes()

EXACT = {                                       # name: (bytes, what must come back)
    '8 bit.png': (png(RGB8), RGB8),
    '8 bit grey.png': (png(GREY8), GREY8),
    '16 bit.png': (png(RGB16), RGB16),
    '16 bit grey.png': (png(GREY16), GREY16),
    '8 bit.tif': (tif(RGB8), RGB8),
    '16 bit.tif': (tif(RGB16), RGB16),
    '16 bit grey.tiff': (tif(GREY16), GREY16),
    'big endian.tif': (tif(RGB16, byteorder='>'), RGB16),
    'big endian grey.tif': (tif(GREY16, byteorder='>'), GREY16),
    'packed.tif': (tif(RGB16, compression='zlib', predictor=True), RGB16),
    'tiles.tif': (tif(RGB16, tile=(16, 16)), RGB16),
    'large tiff.tif': (tif(RGB16, bigtiff=True), RGB16),
    'planes.tif': (tif(np.moveaxis(RGB16, -1, 0), planarconfig='separate'), RGB16),
    'float.tif': (tif(FLOAT), FLOAT),
    'float big endian.tif': (tif(FLOAT, byteorder='>'), FLOAT),
    'double.tif': (tif(FLOAT.astype(np.float64)), FLOAT),
    'half.tif': (tif(FLOAT.astype(np.float16)), FLOAT.astype(np.float16).astype(np.float32)),
    'alpha.png': (png(alpha(RGB8)), RGB8),
    'alpha 16.png': (png(alpha(RGB16)), RGB16),
    'alpha grey.png': (png(alpha(GREY8)), GREY8),
    'alpha grey 16.png': (png(alpha(GREY16)), GREY16),
    'alpha.tif': (tif(alpha(RGB16), extrasamples=['unassalpha']), RGB16),
    'palette.png': (saved(PAL, 'PNG'), np.array(PAL.convert('RGB'))),
    'palette see-through.png': (saved(PAL, 'PNG', transparency=3), np.array(PAL.convert('RGB'))),
    'palette.tif': (saved(PAL, 'TIFF'), np.array(PAL.convert('RGB'))),
    'palette.gif': (saved(PAL, 'GIF'), np.array(PAL.convert('RGB'))),
    '1 bit.png': (saved(Image.fromarray(GREY8 > 99), 'PNG'), np.uint8(255)*(GREY8 > 99)),
    '1 bit.tif': (saved(Image.fromarray(GREY8 > 99), 'TIFF'), np.uint8(255)*(GREY8 > 99)),
    'from white.tif': (tif(GREY16, photometric='miniswhite'), 65535 - GREY16),
    'windows.bmp': (saved(Image.fromarray(RGB8), 'BMP'), RGB8),
    'lossless.webp': (saved(Image.fromarray(RGB8), 'WEBP', lossless=True), RGB8),
    'grey 16.pgm': (ppm(GREY16, b'P5'), GREY16),
    '8 bit.ppm': (ppm(RGB8, b'P6'), RGB8),
    'turned.png': (turned('PNG'), np.rot90(SMOOTH, 3)),
    'turned.tif': (tif(RGB16, extratags=[(274, 'H', 1, 8, True)]), np.rot90(RGB16)),
    'a png called.jpg': (png(RGB8), RGB8),
    'a deep png called.tif': (png(RGB16), RGB16),
    'a deep tiff called.png': (tif(RGB16), RGB16),
    'Zoë 右目 №1 (copy).png': (png(GREY8), GREY8),
    'dots.in.the.name.png': (png(RGB8), RGB8),
    'UPPER.PNG': (png(RGB8), RGB8),
    'one pixel.png': (png(RGB8[:1, :1]), RGB8[:1, :1]),
}
CLOSE = {
    'photo.jpg': (saved(Image.fromarray(SMOOTH), 'JPEG', quality=95), SMOOTH),
    'photo.JPEG': (saved(Image.fromarray(SMOOTH), 'JPEG', quality=95), SMOOTH),
    'grey.jpg': (saved(Image.fromarray(SMOOTH[..., 0]), 'JPEG', quality=95), SMOOTH[..., 0]),
    'turned.jpg': (turned('JPEG', 8), np.rot90(SMOOTH)),
    'print.jpg': (saved(Image.fromarray(SMOOTH).convert('CMYK'), 'JPEG', quality=95), SMOOTH),
    'print.tif': (saved(Image.fromarray(SMOOTH).convert('CMYK'), 'TIFF'), SMOOTH),
    'ycc.tif': (saved(Image.fromarray(SMOOTH), 'TIFF', compression='jpeg'), SMOOTH),
}

JPG = CLOSE['photo.jpg'][0]
def still(n): return [Image.fromarray(np.roll(RGB8, 5*k, 0)) for k in range(n)]
def moving(fmt, n=3, **kw): first, *more = still(n); return saved(first, fmt, save_all=True, append_images=more, **kw)
REFUSED = {                                     # name: (bytes, words of the message)
    'film.gif': (moving('GIF'), 'holds 3 frames'),
    'film.webp': (moving('WEBP', lossless=True), 'holds 3 frames'),
    'film.png': (moving('PNG'), 'holds 3 frames'),
    'stack.tif': (moving('TIFF', 4), 'holds 4 frames'),
    'stack 16.tif': (tif(np.stack([GREY16]*5), photometric='minisblack'), 'holds 5 frames'),
    'volume.tif': (tif(np.zeros((7, 40, 56), np.uint8), photometric='minisblack', imagej=True), 'holds 7 frames'),
    'empty.png': (b'', 'cannot be read'),
    'text.png': (b'patient;eye\n1;left\n', 'cannot be read'),
    'text.tif': (b'patient;eye\n1;left\n', 'cannot be read'),
    'page.jpg': (b'<!DOCTYPE html><html>please log in</html>', 'cannot be read'),
    'cut.png': (png(RGB8)[:3000], 'cannot be read'),
    'cut 16.png': (png(RGB16)[:6000], 'cannot be read'),
    'cut.jpg': (JPG[:len(JPG)//2], 'cannot be read'),
    'cut.tif': (tif(RGB16)[:5000], 'cannot be read'),
    'cut packed.tif': (tif(RGB16, compression='zlib')[:5000], 'cannot be read'),
    'cut.gif': (saved(PAL, 'GIF')[:900], 'cannot be read'),
    'cut.webp': (saved(Image.fromarray(RGB8), 'WEBP')[:500], 'cannot be read'),
    'only a header.png': (png(RGB8)[:33], 'cannot be read'),
    'float beyond.tif': (tif(FLOAT*255), 'outside [0, 1]'),
    'nan.tif': (tif(np.where(FLOAT > .9, np.nan, FLOAT)), 'NaN'),
    'signed.tif': (tif(GREY16.view(np.int16)), 'int16'),
    '32 bit.tif': (tif(GREY16.astype(np.uint32)*9), 'uint32'),
    'deep.ppm': (ppm(RGB16, b'P6'), 'more than 8 bits'),
    'spectrum.tif': (tif(np.zeros((40, 56, 9), np.uint8), photometric='minisblack', planarconfig='contig'), 'neither grey'),
}

@pytest.fixture
def put(tmp_path):
    def put(name, data): (tmp_path/name).parent.mkdir(parents=True, exist_ok=True); (tmp_path/name).write_bytes(data); return tmp_path/name
    return put

# reading --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('name', EXACT)
def test_no_bit_is_lost(name, put):
    data, want = EXACT[name]; got = read_image(put(name, data))
    assert got.dtype == want.dtype and got.dtype.isnative and got.shape == want.shape and np.array_equal(got, want)

@pytest.mark.parametrize('name', CLOSE)
def test_what_loses_by_itself_comes_back_close(name, put):
    data, want = CLOSE[name]; got = read_image(put(name, data))
    assert got.dtype == np.uint8 and got.shape == want.shape and np.abs(got.astype(int) - want).mean() < 2 > np.abs(got.astype(int) - want).max()/8

@pytest.mark.parametrize('name', REFUSED)
def test_what_cannot_be_read_is_said_in_one_line(name, put):
    data, says = REFUSED[name]; path = put(name, data)
    with warnings.catch_warnings(), pytest.raises(ImageError) as e: warnings.simplefilter('error'); read_image(path)
    assert str(path) in str(e.value) and says in str(e.value) and '\n' not in str(e.value) and len(str(e.value)) < len(str(path))*2 + 250

def test_a_cameras_second_small_picture_is_no_frame(put):
    path = put('phone.jpg', saved(Image.fromarray(SMOOTH), 'MPO', save_all=True, append_images=[Image.fromarray(SMOOTH[::4, ::4])], quality=95))
    assert Image.open(path).n_frames == 2 and np.abs(read_image(path).astype(int) - SMOOTH).mean() < 2

def test_a_tiff_with_smaller_copies_of_itself_is_one_image(tmp_path):
    with tifffile.TiffWriter(tmp_path/'a.tif') as t: t.write(RGB16, photometric='rgb', subifds=1); t.write(RGB16[::2, ::2], photometric='rgb', subfiletype=1)
    assert np.array_equal(read_image(tmp_path/'a.tif'), RGB16)

def test_a_folder_is_no_file(tmp_path):
    (tmp_path/'looks.png').mkdir()
    with pytest.raises(ImageError, match='no such file'): read_image(tmp_path/'looks.png')
    with pytest.raises(UserError, match='no images'): list_images(tmp_path)

# writing --------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('suffix', ['.png', '.tif', '.tiff'])
@pytest.mark.parametrize('img', [GREY8, RGB8, GREY16, RGB16, RGB16.astype('>u2'), RGB16[::-1, :, ::-1]],
                         ids=['grey8', 'rgb8', 'grey16', 'rgb16', 'swapped', 'view'])
def test_what_is_written_is_read(img, suffix, tmp_path):
    path = tmp_path/f'Ünï cödé{suffix}'; write_image(path, img)
    got = read_image(path); assert np.array_equal(got, img) and got.dtype.itemsize == img.dtype.itemsize and [p.name for p in tmp_path.iterdir()] == [path.name]
    other = tifffile.imread(path) if suffix != '.png' else imagecodecs.png_decode(path.read_bytes())
    assert np.array_equal(other, img), 'other programs read it too'

def test_floats_keep_their_bits_in_tiff_and_get_eight_elsewhere(tmp_path):
    write_image(tmp_path/'a.tif', FLOAT); assert np.array_equal(read_image(tmp_path/'a.tif'), FLOAT)
    write_image(tmp_path/'a.png', FLOAT); assert np.array_equal(read_image(tmp_path/'a.png'), to_uint(FLOAT))

@pytest.mark.parametrize('name, img, says', [
    ('a.jpg', RGB16, 'cannot hold uint16'), ('a.gif', RGB8, 'use .png'), ('a', RGB8, 'use .png'), ('a.png', np.zeros((5, 4, 7)), 'neither grey'),
    ('a.png', FLOAT*2, 'outside'), ('a.png', np.zeros((0, 4), np.uint8), 'shape'), ('a.png', GREY16.astype(np.int32), 'int32')])
def test_what_cannot_be_written_leaves_nothing(name, img, says, tmp_path):
    with pytest.raises(ImageError) as e: write_image(tmp_path/name, img)
    assert says in str(e.value) and name in str(e.value) and not any(tmp_path.iterdir())

def test_a_place_that_cannot_be_written_is_named(tmp_path, monkeypatch):
    (tmp_path/'file').write_text(''); write_image(tmp_path/'old.png', GREY8)
    with pytest.raises(UserError, match='cannot write here'): write_image(tmp_path/'file'/'a.png', RGB8)
    if os.geteuid():                                          # the administrator may write everywhere
        (tmp_path/'locked').mkdir(); (tmp_path/'locked').chmod(0o555)
        with pytest.raises(UserError, match='locked.*cannot write here'): write_image(tmp_path/'locked'/'a.png', RGB8)
    def no(code): return lambda *a, **k: (_ for _ in ()).throw(OSError(code, os.strerror(code)))
    for code in (30, 13):                                     # a read-only disk, no permission
        monkeypatch.setattr(tempfile, 'mkstemp', no(code)); pytest.raises(UserError, write_image, tmp_path/'a.png', RGB8)
    monkeypatch.undo(); monkeypatch.setattr(Path, 'write_bytes', no(28))                  # no space left
    with pytest.raises(UserError, match=re.escape(os.strerror(28))): write_image(tmp_path/'old.png', RGB8)
    monkeypatch.undo(); assert np.array_equal(read_image(tmp_path/'old.png'), GREY8), 'the old file is still there'
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != 'locked') == ['file', 'old.png']

# folders --------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope='module')
def zoo(tmp_path_factory):
    "A folder of everything, readable and not"
    d = tmp_path_factory.mktemp('zoo')
    for k, (name, (data, _)) in enumerate({**EXACT, **CLOSE, **REFUSED}.items()):
        (d/str(k % 3)).mkdir(exist_ok=True); (d/str(k % 3)/name).write_bytes(data)
    (d/'notes.txt').write_text('not looked at'); (d/'.hidden.png').write_bytes(b'no')
    return d

def test_a_folder_of_everything(zoo):
    from hqgnet_nb.data import ImageSet
    s = ImageSet(zoo, 24)
    assert len(s) == len(EXACT) + len(CLOSE) and {Path(p).name for p, _ in s.failures} == set(REFUSED) and s.channels == 3, 'mixed grey and colour is colour'
    for k in range(len(s)): img, fov = s.view(k, 24); assert img.shape == (3, 24, 24) and fov.shape == (1, 24, 24) and 0 <= img.min() <= img.max() <= 1

def test_training_goes_past_what_cannot_be_read(zoo):
    from hqgnet_nb.data import unpaired_dls
    dls = unpaired_dls(zoo, zoo, size=20, bs=4)
    assert len(dls.failures) == 2*len(REFUSED) and dls.train.one_batch()[0].shape == (4, 3, 20, 20) and dls.channels == 3

def test_grey_alone_is_grey_and_depth_does_not_matter(put):
    from hqgnet_nb.data import ImageSet
    a, b, c = (put(f'{n}.tif', tif(x)) for n, x in (('8', GREY8), ('16', GREY8.astype(np.uint16)*257), ('f', to_float(GREY8))))
    s = ImageSet([a, b, c], 24); assert s.channels == 1
    assert all((s.view(k, 24)[0] - s.view(0, 24)[0]).abs().max() <= 1/255 for k in (1, 2)), 'one picture, three depths'
    grey, colour = (ImageSet([a], 24, channels=n).view(0, 24)[0] for n in (1, 3)); assert colour.shape[0] == 3 and (colour == grey).all()

def test_mixed_sizes_in_one_folder(tmp_path):
    from hqgnet_nb.data import unpaired_dls
    for k, (h, w) in enumerate([(9, 200), (30, 30), (300, 40), (128, 128)]): write_image(tmp_path/f'{k}.png', GEN.integers(0, 256, (h, w, 3)).astype(np.uint8))
    assert {tuple(b[0].shape) for b in unpaired_dls(tmp_path, tmp_path, size=32, bs=2).train} == {(2, 3, 32, 32)}

def test_one_image_is_enough_and_none_is_not(tmp_path):
    from hqgnet_nb.data import unpaired_dls
    write_image(tmp_path/'one'/'a.png', RGB8); (tmp_path/'empty').mkdir(); (tmp_path/'bad').mkdir(); (tmp_path/'bad'/'x.png').write_bytes(b'no')
    dls = unpaired_dls(tmp_path/'one', tmp_path/'one'/'a.png', size=20, bs=3)
    assert dls.train.one_batch()[0].shape == (3, 3, 20, 20) and dls.valid.one_batch()[0].shape == (1, 3, 20, 20)
    for lq, says in ((tmp_path/'empty', 'no images'), (tmp_path/'nowhere', 'no such'), (tmp_path/'bad', 'none of 1'), ([], 'empty list')):
        with pytest.raises(UserError) as e: unpaired_dls(lq, tmp_path/'one', size=20)
        assert says in str(e.value) and '\n' not in str(e.value)

def test_two_files_of_one_stem_stay_on_one_side(tmp_path):
    "Training takes both, as two images; but never one for training and one for validation"
    from hqgnet_nb.data import unpaired_dls
    for name in ('a.png', 'a.jpg', 'b.png', 'c.png'): write_image(tmp_path/name, RGB8)
    for seed in range(6):
        dls = unpaired_dls(tmp_path, tmp_path, size=20, valid_pct=.3, seed=seed)
        lq, valid = ({Path(f).stem for f in x.dataset.lq.items} for x in (dls.train, dls.valid))
        assert not lq & valid and lq | valid == {'a', 'b', 'c'}

def test_references_must_fit(tmp_path):
    from hqgnet_nb.data import unpaired_dls
    for name in ('lq/a.png', 'lq/b.png', 'ref/a.tif', 'ref/b.jpg', 'other/a.png', 'other/c.png', 'few/a.png'): write_image(tmp_path/name, RGB8)
    shutil.copytree(tmp_path/'ref', tmp_path/'broken'); (tmp_path/'broken/a.tif').write_bytes(b'no')
    dls = unpaired_dls(tmp_path/'lq', tmp_path/'ref', size=20, valid_lq=tmp_path/'lq', valid_ref=tmp_path/'ref'); assert len(dls.valid.one_batch()) == 5
    for ref, says in (('other', "meets reference 'c'"), ('few', '1 references for 2'), ('broken', 'a.tif')):
        with pytest.raises(UserError) as e: unpaired_dls(tmp_path/'lq', tmp_path/'ref', size=20, valid_lq=tmp_path/'lq', valid_ref=tmp_path/ref)
        assert says in str(e.value)

@pytest.mark.parametrize('packing', [None, 'lzw', 'zlib'])
@pytest.mark.parametrize('kind', ['separated', 'palette'])
def test_a_tiff_that_is_cut_short_is_refused_in_silence(kind, packing, tmp_path, capfd):
    "The decoder of what Pillow reads writes lines of its own, past Python"
    a = np.random.default_rng(0).integers(0, 255, (64, 64, 4) if kind == 'separated' else (64, 64), np.uint8); refused = 0
    more = {} if kind == 'separated' else dict(colormap=np.arange(3*256, dtype=np.uint16).reshape(3, 256))
    tifffile.imwrite(tmp_path/'a.tif', a, photometric=kind, compression=packing, **more)
    assert read_image(tmp_path/'a.tif').shape == (64, 64, 3); whole = (tmp_path/'a.tif').read_bytes()
    for n in range(len(whole) - 5, 200, -len(whole)//9):
        (tmp_path/'b.tif').write_bytes(whole[:n])
        with pytest.raises(ImageError): read_image(tmp_path/'b.tif')
        refused += 1
    said = capfd.readouterr(); assert refused >= 7 and said.err == said.out == '', said

def test_tilde_is_the_home_folder(monkeypatch, tmp_path):
    "In the library as in a shell; but a name that begins with ~ is a name"
    from hqgnet_nb.core import image_facts, list_images
    from hqgnet_nb.export import weights_of
    from hqgnet_nb.generator import SHIPPED, load_net
    from hqgnet_nb.phantoms import write_phantoms
    from hqgnet_nb.train import begin_from
    monkeypatch.setenv('HOME', str(tmp_path)); monkeypatch.chdir(tmp_path); shutil.copytree(SHIPPED/'fundus-tiny', tmp_path/'m')
    write_image('~/in/x.png', RGB8, facts=dict(dpi=(99, 99))); assert (tmp_path/'in/x.png').is_file() and (read_image('~/in/x.png') == RGB8).all()
    assert image_facts('~/in/x.png') and list_images('~/in') == [tmp_path/'in/x.png']
    write_phantoms('~/p', n=1, size=32); assert (tmp_path/'p/images/0000.png').is_file()
    assert load_net('~/m')[1] == load_net('fundus-tiny')[1] and weights_of('~/m') == tmp_path/'m/model.safetensors'
    assert begin_from('~/m', 'tiny', 3)[1]['init'] == 'm' and not (tmp_path/'~').exists()
    write_image('in/~x.png', RGB8); monkeypatch.chdir(tmp_path/'in'); assert [(read_image(f) == RGB8).all() for f in list_images('.')] == [True]*2

# the command line -----------------------------------------------------------------------------------------------------------

def hqgnet(*args):
    "(exit code, stdout, stderr) of a command in this process"
    from hqgnet_nb.cli import main
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err: code = main([*map(str, args)])
    return code, out.getvalue(), err.getvalue()

@pytest.fixture(scope='module')
def run(zoo, tmp_path_factory):
    "A run of two steps on the folder of everything; its name has a space"
    out = tmp_path_factory.mktemp('runs')/'my rün'; good = shutil.copytree(zoo, out.parent/'good')
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        code, _, err = hqgnet('train', '--lq', zoo, '--hq', good, '--out', out, '--steps', 2, '--size', 32, '--device', 'cpu', '--names')
    said = err + ' '.join(str(w.message) for w in said)
    assert code == 0 and all(name in said for name in REFUSED), f'not named: {[n for n in REFUSED if n not in said]}'
    return out

def test_enhance_keeps_shape_and_depth_of_everything(run, zoo, tmp_path):
    "Strength 0 gives the input back, so that depth, turns and colours are seen to survive the whole way"
    for k in '012':
        names = {p.name: p for p in (zoo/k).iterdir()}; stems = [Path(n).stem for n in names]
        keep = [n for n in names if stems.count(Path(n).stem) == 1]; src = tmp_path/f'in {k}'; src.mkdir()
        for n in keep: shutil.copy(names[n], src/n)
        code, out, err = hqgnet('enhance', run, src, tmp_path/f'out {k}', '--names', '--strength', 0)
        bad = [n for n in keep if n in REFUSED]
        assert code == 1 and all(n in err for n in bad) and err.splitlines()[-1].endswith(f'{len(bad)} of {len(keep)} images failed')
        for n in set(keep) - set(bad):
            x, y = read_image(src/n), read_image((tmp_path/f'out {k}'/n).with_suffix('.png'))
            assert np.array_equal(to_uint(x, np.uint16) if x.dtype == np.float32 else x, y) and (x.dtype == y.dtype or x.dtype == np.float32), n

def test_enhance_refuses_twins_and_says_which(run, tmp_path):
    for n in ('a.png', 'a.jpg'): write_image(tmp_path/'in'/n, RGB8)
    code, out, err = hqgnet('enhance', run, tmp_path/'in', tmp_path/'out', '--names')
    assert code == 2 and 'a.jpg' in err and 'a.png' in err and not (tmp_path/'out').exists()
    assert hqgnet('enhance', run, tmp_path/'in', tmp_path/'out', '--format', 'same')[0] == 0
    assert sorted(p.name for p in (tmp_path/'out').glob('a*')) == ['a.jpg', 'a.jpg.json', 'a.png', 'a.png.json']

@pytest.mark.parametrize('name', ['film.gif', 'stack.tif', 'cut.jpg', 'text.png', 'float beyond.tif'])
def test_one_bad_file_is_one_line(name, run, put, tmp_path):
    data, says = REFUSED[name]; code, out, err = hqgnet('enhance', run, put(name, data), tmp_path/'out', '--names')
    assert code == 2 and out == '' and len(err.splitlines()) == 1 and says in err and name in err

def test_enhance_where_nothing_can_be_written(run, put, tmp_path, monkeypatch):
    src = put('in/a.png', png(RGB8))
    monkeypatch.setattr(tempfile, 'mkstemp', lambda *a, **k: (_ for _ in ()).throw(PermissionError(13, 'Permission denied')))
    code, out, err = hqgnet('enhance', run, src, tmp_path/'out'); assert code == 2 and 'cannot write here' in err and 'Traceback' not in err

def test_units_of_a_microscope(tmp_path):
    "ImageJ's way: pixels for each unit, the unit's name in the description, none in the tag: kept in a TIFF of the same size, and only there"
    from hqgnet_nb.core import image_facts
    img = np.arange(48*64, dtype=np.uint8).reshape(48, 64); path = tmp_path/'a.tif'
    for words, turn in (('ImageJ=1.54f\nunit=\\u00B5m\nmin=0.0\nmax=255.0\n', 1), (None, 1), ('ImageJ=1.54f\nunit=micron\nyunit=mm\n', 6)):
        tifffile.imwrite(path, img, resolution=((31, 10), (3, 1)), resolutionunit='NONE', description=words, metadata=None, extratags=[(274, 3, 1, turn, True)])
        x, facts = read_image(path), image_facts(path); write_image(tmp_path/'b.tif', x, facts=facts); assert 'dpi' not in facts
        with tifffile.TiffFile(tmp_path/'b.tif') as t:
            of = t.pages[0].tags.valueof; res = ((31, 10), (3, 1))[::1 if turn == 1 else -1]
            assert (of('XResolution'), of('YResolution')) == res and of('ResolutionUnit') == 1, (of('XResolution'), res)
            if words: assert of('ImageDescription') == '\n'.join(w for w in words.splitlines() if w[:3] not in ('min', 'max')) and t.is_imagej
        assert np.array_equal(read_image(tmp_path/'b.tif'), x) and image_facts(tmp_path/'b.tif') == facts
        write_image(tmp_path/'c.tif', x[::2], facts=facts); write_image(tmp_path/'c.png', x, facts=facts)
        assert not image_facts(tmp_path/'c.tif') and not image_facts(tmp_path/'c.png')
    (tmp_path/'in').mkdir(); path.rename(tmp_path/'in/a.tif')
    from hqgnet_nb.cli import main
    assert main(['enhance', 'fundus-tiny', str(tmp_path/'in'), str(tmp_path/'out'), '--format', 'same', '--device', 'cpu']) == 0
    assert image_facts(tmp_path/'out/a.tif')['units'] == facts['units']

@pytest.mark.parametrize('unit, want', [('', (25400/.83, 25400/1.66)), (' PhysicalSizeXUnit="&#181;m"', (25400/.83, 25400/1.66)),
                                        (' PhysicalSizeXUnit="pixel"', (72, 36)), (' PhysicalSizeYUnit="mm"', (25400/.83, 25.4/1.66)),
                                        (' PhysicalSizeXUnit="nm"', None), ('none', (72, 36))])
def test_pixel_sizes_of_an_ome_tiff(unit, want, tmp_path):
    "What its XML says of pixels goes before the tags and is kept as resolution, in TIFF and PNG; not beyond a million pixels an inch"
    from hqgnet_nb.core import image_facts
    img = np.arange(48*64, dtype=np.uint16).reshape(48, 64); size = '' if unit == 'none' else f' PhysicalSizeX="0.83" PhysicalSizeY="1.66"{unit}'
    words = f'<?xml version="1.0"?><OME><Image ID="Image:0"><Pixels ID="P" SizeX="64" SizeY="48"{size}/></Image></OME>'
    tifffile.imwrite(tmp_path/'a.ome.tif', img, description=words.encode(), metadata=None, resolution=(72, 36), resolutionunit='INCH')
    facts = image_facts(tmp_path/'a.ome.tif'); x = read_image(tmp_path/'a.ome.tif'); assert np.array_equal(x, img) and ('dpi' in facts) == (want is not None)
    for name in ('b.tif', 'b.png') if want else ():
        write_image(tmp_path/name, x, facts=facts); assert np.allclose(image_facts(tmp_path/name)['dpi'], want, rtol=1e-3), name
