"""DICOM, NIfTI and video: the same bits back, values beyond the window kept, patients' names kept to the file, and one line for whatever is broken."""
import gzip, io, logging, math, re, struct, subprocess, sys, threading, time, traceback, warnings
from fractions import Fraction
from pathlib import Path
import imagecodecs, numpy as np, pytest
from PIL import Image
pydicom, nib, av = (pytest.importorskip(m) for m in ('pydicom', 'nibabel', 'av'))
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut, convert_color_space
from hqgnet_nb.core import ImageError, UserError, read_image, write_image
from hqgnet_nb.medical import Curve, list_documents, open_document, window

NAME = 'DOE^JANE'
SYNTAXES = dict(explicit=uid.ExplicitVRLittleEndian, implicit=uid.ImplicitVRLittleEndian, big=uid.ExplicitVRBigEndian,
                deflated=uid.DeflatedExplicitVRLittleEndian)

def gen(): return np.random.default_rng(0)

def dicom(path, a, pi='MONOCHROME2', bits=None, syntax=uid.ExplicitVRLittleEndian, frames=None, pixels=None, without=(), shift=0, alloc=None, **more):
    "A file from nothing: `a` as stored values, (frames x) HxW or HxWx3"
    ds, meta = Dataset(), FileMetaDataset()
    alloc = alloc or 8*a.itemsize; bits = bits or alloc; color = a.shape[-1] == 3 and pi[0] in 'RY'
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = syntax, '1.2.840.10008.5.1.4.1.1.2', '1.2.3.4'
    ds.SOPClassUID, ds.SOPInstanceUID, ds.StudyInstanceUID, ds.SeriesInstanceUID = meta.MediaStorageSOPClassUID, '1.2.3.4', '1.2.3', '1.2.3.1'
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.Modality, ds.SeriesDescription = NAME, 'ID-4711', '19700101', 'CT', 'axial'
    ds.ImageType = ['ORIGINAL', 'PRIMARY', 'AXIAL', 'NORM']
    ds.PixelSpacing, ds.ImageOrientationPatient, ds.SliceThickness = [.5, .75], [1, 0, 0, 0, 1, 0], 2.5
    ds.Rows, ds.Columns = a.shape[-3:-1] if color else a.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 3 if color else 1, pi
    if color: ds.PlanarConfiguration = more.pop('PlanarConfiguration', 0)
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = alloc, bits, bits - 1 + shift, int(a.dtype.kind == 'i')
    if frames: ds.NumberOfFrames = frames
    for k, v in more.items(): setattr(ds, k, v)
    little = syntax != uid.ExplicitVRBigEndian
    data = a.astype(a.dtype.newbyteorder('<' if little else '>')).tobytes() if pixels is None else pixels
    ds.add_new(0x7FE00010, 'OW' if alloc > 8 or syntax == uid.ImplicitVRLittleEndian else 'OB', data + b'\0'*(len(data) % 2))
    if syntax.is_encapsulated: ds['PixelData'].is_undefined_length = True
    for k in without: delattr(ds, k)
    ds.file_meta = meta; path = Path(path); pydicom.dcmwrite(path, ds, enforce_file_format=True)
    return path

def there_and_back(path, out, change=lambda f: f):
    "The frames of a file, after it was written again"
    with open_document(path) as doc:
        frames = [f.copy() for f in doc]; doc.write(out, (change(doc.frame(k)) for k in range(doc.n)))
        assert doc.n == len(frames) == doc.facts['frames'] and doc.suffix in out.name
    return frames

def raw(path): return pydicom.dcmread(path).PixelData

def grey(dtype, bits, shape=(17, 23)):
    a = np.iinfo(dtype); low = -2**(bits - 1) if a.min else 0
    return gen().integers(low, low + 2**bits, shape).astype(dtype)

# DICOM: the same bits back -------------------------------------------------------------------------------------------------

GREY = [(np.uint8, 8), (np.uint16, 8), (np.uint16, 10), (np.uint16, 12), (np.int16, 12), (np.uint16, 14), (np.uint16, 16), (np.int16, 16), (np.int8, 8)]
@pytest.mark.parametrize('syntax', SYNTAXES)
@pytest.mark.parametrize('pi', ['MONOCHROME1', 'MONOCHROME2'])
@pytest.mark.parametrize('dtype, bits', GREY)
def test_grey_comes_back_bit_for_bit(dtype, bits, pi, syntax, tmp_path):
    for k, more in enumerate([{}, dict(WindowCenter=[40, 300], WindowWidth=[80, 100]),
                              dict(WindowCenter=50, WindowWidth=30, RescaleSlope=-.5, RescaleIntercept=7)]):
        src = dicom(tmp_path/f'{k}.dcm', grey(dtype, bits), pi, bits, SYNTAXES[syntax], **more); out = tmp_path/f'{k}o.dcm'
        frame, = there_and_back(src, out)
        assert frame.shape == (17, 23) and frame.min() >= 0 and frame.max() <= 255*257 and raw(src) == raw(out)
        a, b = pydicom.dcmread(src), pydicom.dcmread(out); changed = {'SOPInstanceUID', 'SeriesInstanceUID', 'ImageType', 'SeriesDescription'}
        assert {e.keyword for e in a if b.get(e.keyword) != e.value} == changed
        assert {e.keyword for e in b} - {e.keyword for e in a} == {'DerivationDescription', 'SourceImageSequence'}
        assert list(b.ImageType) == ['DERIVED', 'SECONDARY', 'AXIAL', 'NORM'] and b.SourceImageSequence[0].ReferencedSOPInstanceUID == '1.2.3.4'
        assert b.file_meta.MediaStorageSOPInstanceUID == b.SOPInstanceUID and b.PixelSpacing == [.5, .75] and 'not for diagnosis' in b.DerivationDescription
        assert all(re.fullmatch(r'2\.25\.\d{10,39}', u) for u in (b.SOPInstanceUID, b.SeriesInstanceUID)) and b.SOPInstanceUID != b.SeriesInstanceUID

@pytest.mark.parametrize('dtype, pi, more', [(np.uint16, 'MONOCHROME2', {}), (np.uint16, 'MONOCHROME1', {}), (np.int16, 'MONOCHROME2', {}),
    (np.int16, 'MONOCHROME1', dict(WindowCenter=100, WindowWidth=5)),
    (np.uint16, 'MONOCHROME2', dict(WindowCenter=9, WindowWidth=90, VOILUTFunction='SIGMOID'))])
def test_a_ramp_keeps_its_65536_levels(dtype, pi, more, tmp_path):
    ramp = np.arange(65536).astype(np.uint16).view(dtype).reshape(256, 256)
    src = dicom(tmp_path/'a.dcm', ramp, pi, **more); there_and_back(src, tmp_path/'b.dcm')
    assert len(np.unique(pydicom.dcmread(tmp_path/'b.dcm').pixel_array)) == 65536 and raw(src) == raw(tmp_path/'b.dcm')

@pytest.mark.parametrize('syntax', ['explicit', 'implicit', 'big'])
@pytest.mark.parametrize('shape', [(5, 7, 3), (6, 8, 3), (3, 5, 7, 3)])
@pytest.mark.parametrize('pi, planar', [('RGB', 0), ('RGB', 1), ('YBR_FULL', 0), ('YBR_FULL', 1)])
def test_colour_comes_back_bit_for_bit(pi, planar, shape, syntax, tmp_path):
    a = gen().integers(0, 256, shape).astype(np.uint8); stored = np.moveaxis(a, -1, -3) if planar else a
    src = dicom(tmp_path/'a.dcm', a, pi, None, SYNTAXES[syntax], *shape[:-3], pixels=stored.tobytes(), PlanarConfiguration=planar)
    frames = there_and_back(src, tmp_path/'b.dcm'); b = pydicom.dcmread(tmp_path/'b.dcm')
    want = a if pi == 'RGB' else convert_color_space(a, 'YBR_FULL', 'RGB')
    assert np.array_equal(np.squeeze(frames), want) and raw(src) == raw(tmp_path/'b.dcm')
    assert (b.PhotometricInterpretation, b.PlanarConfiguration) == (pi, planar)
    there_and_back(src, tmp_path/'c.dcm', lambda f: 255 - f)
    with open_document(tmp_path/'c.dcm') as c: assert np.abs(np.squeeze(list(c)).astype(int) - (255 - want)).max() <= (0 if pi == 'RGB' else 3)

def test_deep_colour_halved_colour_and_palettes(tmp_path):
    for bits, kind in ((16, np.uint16), (12, np.float32)):
        src = dicom(tmp_path/'a.dcm', grey(np.uint16, bits, (6, 8, 3)), 'RGB', bits); frame, = there_and_back(src, tmp_path/'b.dcm')
        assert frame.dtype == kind and frame.shape == (6, 8, 3) and raw(src) == raw(tmp_path/'b.dcm')
    a = gen().integers(0, 256, (6, 4, 4)).astype(np.uint8)                                     # Y Y Cb Cr
    src = dicom(tmp_path/'a.dcm', np.zeros((6, 8, 3), np.uint8), 'YBR_FULL_422', pixels=a.tobytes()); frame, = there_and_back(src, tmp_path/'b.dcm')
    full = np.stack([a[..., :2].reshape(6, 8), *(np.repeat(a[..., k], 2, 1) for k in (2, 3))], -1)
    assert np.array_equal(frame, convert_color_space(full, 'YBR_FULL', 'RGB')) and raw(tmp_path/'b.dcm') == full.tobytes()
    for bits, dtype in ((8, np.uint8), (16, np.uint16)):
        lut = gen().integers(0, 2**bits, (3, 256)).astype(dtype); more = {}
        for c, name in enumerate(('Red', 'Green', 'Blue')):
            more |= {f'{name}PaletteColorLookupTableDescriptor': [256, 0, bits], f'{name}PaletteColorLookupTableData': lut[c].tobytes()}
        a = grey(np.uint8, 8); src = dicom(tmp_path/'a.dcm', a, 'PALETTE COLOR', **more); frame, = there_and_back(src, tmp_path/'b.dcm')
        b = pydicom.dcmread(tmp_path/'b.dcm')
        assert frame.dtype == dtype and np.array_equal(frame, lut.T[a]) and np.array_equal(b.pixel_array, frame) and b.PhotometricInterpretation == 'RGB'

def test_a_palette_has_one_depth(tmp_path):
    "That of all its colours, also where those of the first frame would do with 8 bits"
    lut = (257*np.arange(256)).astype(np.uint16); red = lut.copy(); red[9] = 0x1234; more = {}
    for name, v in (('Red', red), ('Green', lut), ('Blue', lut)):
        more |= {f'{name}PaletteColorLookupTableDescriptor': [256, 0, 16], f'{name}PaletteColorLookupTableData': v.tobytes()}
    a = np.full((2, 5, 4), 200, np.uint8); a[1] = 9; src = dicom(tmp_path/'a.dcm', a, 'PALETTE COLOR', frames=2, **more)
    frames = there_and_back(src, tmp_path/'b.dcm'); b = pydicom.dcmread(tmp_path/'b.dcm')
    assert [f.dtype for f in frames] == [np.uint16]*2 and b.BitsStored == 16 and np.array_equal(b.pixel_array, frames) and frames[1][0, 0, 0] == 0x1234

@pytest.mark.parametrize('syntax', ['explicit', 'implicit', 'big'])
def test_bytes_in_words_are_bytes(syntax, tmp_path):
    "Colours of 8 bits in words that are announced as 16 bits, and a palette of one colour, whose second byte is padding: not nearly black"
    order = '>u2' if syntax == 'big' else '<u2'
    for n, bits in ((256, 16), (256, 8), (1, 8), (1, 16)):
        lut, more = np.stack([np.roll(np.arange(256), 9*c)[-n:] for c in range(3)]).astype(np.uint16), {}
        for c, name in enumerate(('Red', 'Green', 'Blue')):
            more |= {f'{name}PaletteColorLookupTableDescriptor': [n, 0, bits], f'{name}PaletteColorLookupTableData': lut[c].astype(order).tobytes()}
        a = grey(np.uint8, 8); src = dicom(tmp_path/'a.dcm', a, 'PALETTE COLOR', syntax=SYNTAXES[syntax], **more)
        frame, = there_and_back(src, tmp_path/'b.dcm'); b = pydicom.dcmread(tmp_path/'b.dcm')
        assert frame.dtype == np.uint8 and np.array_equal(frame, lut.T[np.minimum(a, n - 1)]) and frame.max() > 200
        assert b.BitsStored == 8 and np.array_equal(b.pixel_array, frame)

@pytest.mark.parametrize('syntax', ['explicit', 'implicit', 'big'])
def test_palettes_in_every_order_of_bytes(syntax, tmp_path):
    for bits, wide in ((8, np.uint8), (16, np.uint16)):
        lut = gen().integers(0, 2**bits, (3, 1024)).astype(wide); more, order = {}, '>u2' if syntax == 'big' else '<u2'
        for c, name in enumerate(('Red', 'Green', 'Blue')):
            data = lut[c].view('<u2').astype(order).tobytes()
            more |= {f'{name}PaletteColorLookupTableDescriptor': [1024, 5, bits], f'{name}PaletteColorLookupTableData': data}
        a = grey(np.uint16, 12); src = dicom(tmp_path/'a.dcm', a, 'PALETTE COLOR', 12, SYNTAXES[syntax], **more)
        with open_document(src) as doc: assert np.array_equal(doc.frame(0), lut.T[np.clip(a.astype(int) - 5, 0, 1023)])

def test_implicit_lengths_are_no_types(tmp_path):
    "Of a few bytes, and of a length whose bytes are letters"
    for shape, dtype in (((1, 1), np.uint8), ((1, 1), np.uint16), ((33, 257), np.uint16), ((167, 50), np.uint16)):
        a = grey(dtype, 8, shape); a.flat[0] = 77; src = dicom(tmp_path/'a.dcm', a, bits=8, syntax=SYNTAXES['implicit'])
        frame, = there_and_back(src, tmp_path/'b.dcm')
        assert np.array_equal(frame, a.astype(np.uint8)) and raw(src) == raw(tmp_path/'b.dcm')

def test_bits_beside_the_stored_ones_stay(tmp_path):
    "Overlays of old, in the upper four bits; stored values in the upper twelve; signed ones whose upper bits do not repeat the sign"
    a, extra = grey(np.uint16, 12), gen().integers(0, 16, (17, 23)).astype(np.uint16)
    for n, (stored, shift) in enumerate([(a | extra << 12, 0), (a << 4 | extra, 4)]):
        src = dicom(tmp_path/f'{n}.dcm', stored, bits=12, shift=shift, alloc=16, pixels=stored.tobytes()); there_and_back(src, tmp_path/'b.dcm')
        assert raw(src) == raw(tmp_path/'b.dcm')
        there_and_back(src, tmp_path/'b.dcm', lambda f: (f*np.float32(.5)).astype(np.float32))
        b = np.frombuffer(raw(tmp_path/'b.dcm'), np.uint16).reshape(17, 23)
        rest = 0xF000 if n == 0 else 0x000F
        assert (b & rest == stored & rest).all() and np.abs((b >> shift & 4095).astype(int) - (a + int(a.min()))/2).max() <= 1
    for pack in (lambda v: v.view(np.uint16), lambda v: v.view(np.uint16) & 4095):               # both are in use
        v = grey(np.int16, 12); src = dicom(tmp_path/'s.dcm', v, bits=12, pixels=pack(v).tobytes())
        there_and_back(src, tmp_path/'b.dcm', lambda f: 1 - f)
        got = np.frombuffer(raw(tmp_path/'b.dcm'), np.uint16); signed = (got & 4095).astype(np.int16); signed[signed > 2047] -= 4096
        assert np.abs(signed.reshape(v.shape) - (int(v.min()) + int(v.max()) - v.astype(int))).max() <= 1
        assert np.array_equal(got, pack(signed))

def test_padding_stays_padding_and_nothing_becomes_it(tmp_path):
    a = grey(np.int16, 12); a[a < -1500] = -1500; a[:4] = -2000
    src = dicom(tmp_path/'a.dcm', a, PixelPaddingValue=-2000, PixelPaddingRangeLimit=-1900)
    frame, = there_and_back(src, tmp_path/'b.dcm', lambda f: (f*np.float32(.2)).astype(np.float32)); b = pydicom.dcmread(tmp_path/'b.dcm').pixel_array
    assert (b[:4] == -2000).all() and b[4:].min() > -1900 and frame[4:].min() == 0, 'the range is that of what was measured'
    there_and_back(dicom(tmp_path/'c.dcm', a, PixelPaddingValue=-1499), tmp_path/'d.dcm', lambda f: (f*0).astype(np.float32))
    assert not (pydicom.dcmread(tmp_path/'d.dcm').pixel_array == -1499).any()

# DICOM: what is shown ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', ['LINEAR', 'LINEAR_EXACT', 'SIGMOID'])
@pytest.mark.parametrize('centre, width', [(40, 400), (-600, 1500), (1000.5, 2.5), (300, 4096)])
def test_windows_are_those_of_pydicom(kind, centre, width, tmp_path):
    a = grey(np.int16, 12, (64, 64)); more = dict(WindowCenter=centre, WindowWidth=width, VOILUTFunction=kind, RescaleSlope=2, RescaleIntercept=-1024)
    with open_document(dicom(tmp_path/"a.dcm", a, bits=12, **more)) as doc, warnings.catch_warnings():
        warnings.simplefilter('ignore'); ds = pydicom.dcmread(tmp_path/'a.dcm'); x = apply_modality_lut(a, ds); want = apply_voi_lut(x, ds)
        low, high = -2048*2 - 1024, 2047*2 - 1024                                                # pydicom's range of output
        assert np.allclose(doc.frame(0), (want - low)/(high - low), atol=2e-4 if kind == 'SIGMOID' else 1e-6) and doc.facts['window'] == [centre, width]
    with open_document(dicom(tmp_path/"b.dcm", a, "MONOCHROME1", 12, **more)) as other: assert np.allclose(other.frame(0), 1 - doc.frame(0), atol=1e-6)

def table(values, start, bits, name='VOILUTSequence'):
    item = Dataset(); item.LUTDescriptor, item.LUTData = [len(values), start, bits], np.asarray(values).astype('<u2').tobytes()
    if name == 'ModalityLUTSequence': item.ModalityLUTType = 'US'
    return {name: [item]}

def test_tables_of_the_file_are_used_and_can_be_undone(tmp_path):
    steps = np.rint(255*np.linspace(0, 1, 1024)**.5).astype(int); a = grey(np.uint16, 12, (64, 64))
    src = dicom(tmp_path/'a.dcm', a, bits=12, **table(steps, 1000, 8)); f, = there_and_back(src, tmp_path/'b.dcm')
    assert np.allclose(f, steps[np.clip(a.astype(int) - 1000, 0, 1023)]/255, atol=1e-6) and raw(src) == raw(tmp_path/'b.dcm')
    there_and_back(src, tmp_path/'b.dcm', lambda f: np.clip(f*1.25, 0, 1).astype(np.float32))
    with open_document(tmp_path/'b.dcm') as b: assert np.abs(b.frame(0) - np.clip(f*1.25, 0, 1))[f > .1].max() < 1/128
    m = table(np.arange(4096)[::-1]*3, 0, 16, 'ModalityLUTSequence')
    with open_document(dicom(tmp_path/'c.dcm', a, bits=12, WindowCenter=6000, WindowWidth=6000, **m)) as c:
        assert np.allclose(c.frame(0), window((4095 - a.astype(float))*3, 6000, 6000), atol=1e-6)
    rough = gen().permutation(4096)
    with open_document(dicom(tmp_path/'d.dcm', a, bits=12, **table(rough, 0, 12))) as d:
        assert np.corrcoef(d.frame(0).ravel(), a.ravel())[0, 1] > .999, 'no order: not used'

def test_change_is_exact_in_the_window_and_orderly_beyond(tmp_path):
    a = np.sort(grey(np.int16, 16, (64, 64)).ravel()).reshape(64, 64); a[0, :9] = np.arange(-160, 241, 50); a = np.sort(a.ravel()).reshape(64, 64)
    src = dicom(tmp_path/'a.dcm', a, WindowCenter=40, WindowWidth=400, RescaleIntercept=0, RescaleSlope=1)
    tone = lambda f: np.clip(.1 + .8*f**.7, 0, 1).astype(np.float32)
    f, = there_and_back(src, tmp_path/'b.dcm', tone); b = pydicom.dcmread(tmp_path/'b.dcm').pixel_array
    inside = (a > -160) & (a < 239)
    assert inside.sum() > 5 and np.abs(window(b[inside].astype(float), 40, 400) - tone(f)[inside]).max() <= .5/399 + 1e-6
    assert (np.diff(b.ravel().astype(int)) >= 0).all(), 'what was brighter is brighter'
    beyond = (a < -300) | (a > 400); far = beyond & (np.abs(a.astype(int)) < 32000)
    assert len(np.unique(b[far])) == len(np.unique(a[far])) and np.abs(b[far].astype(int) - a[far]).max() <= 41, 'nothing beyond is lost'

@pytest.mark.parametrize('falling', [0, 1])
@pytest.mark.parametrize('bits', [8, 12, 16])
def test_a_curve_goes_there_and_back(falling, bits):
    n = 2**bits; shown = np.clip((np.arange(n) - n/4)/(n/3), 0, 1); shown = 1 - shown if falling else shown; c = Curve(shown)
    i = gen().integers(0, n, (40, 50)); assert np.array_equal(c.change(i, c.table[i]), i) and np.allclose(c.back(c.over(i.astype(float))), i)
    assert np.allclose(np.clip(c.over(np.arange(n, dtype=float)), 0, 1), shown)
    with pytest.raises(ValueError): Curve(np.zeros(n))

def test_frames_without_a_window_show_the_range_of_the_whole_file(tmp_path):
    a = np.stack([np.full((5, 6), 100), np.full((5, 6), 300), np.full((5, 6), 200)]).astype(np.uint16)
    with open_document(dicom(tmp_path/'a.dcm', a, bits=12, frames=3, FrameTime=40)) as doc:
        assert [f.mean() for f in doc] == [0, 1, .5] and doc.facts['fps'] == 25
    with open_document(dicom(tmp_path/'b.dcm', a[0])) as flat: assert flat.frame(0).std() == 0
    with open_document(dicom(tmp_path/'c.dcm', a[1], WindowCenter=60000, WindowWidth=10, bits=12)) as doc:
        assert doc.frame(0).mean() > 0, 'a window beside all values'

def test_enhanced_objects_have_windows_frame_by_frame(tmp_path):
    def group(centre):
        item, voi, value, size = (Dataset() for _ in range(4))
        voi.WindowCenter, voi.WindowWidth, value.RescaleSlope, value.RescaleIntercept, size.PixelSpacing = centre, 100, 2, 0, [.3, .4]
        item.FrameVOILUTSequence, item.PixelValueTransformationSequence, item.PixelMeasuresSequence = [voi], [value], [size]
        return item
    a = grey(np.uint16, 12, (2, 8, 9))
    src = dicom(tmp_path/'a.dcm', a, bits=12, frames=2, PerFrameFunctionalGroupsSequence=[group(1000), group(5000)], without=['PixelSpacing'])
    frames = there_and_back(src, tmp_path/'b.dcm')
    assert all(np.allclose(f, window(2.*x, c, 100), atol=1e-6) for f, x, c in zip(frames, a, (1000, 5000))) and raw(src) == raw(tmp_path/'b.dcm')
    with open_document(src) as doc: assert doc.facts['spacing'] == [.3, .4]

# DICOM: compressed ---------------------------------------------------------------------------------------------------------

def jpeg(a): f = io.BytesIO(); Image.fromarray(a).save(f, 'JPEG', quality=95); return f.getvalue()

def packed():
    g, c, d = grey(np.uint8, 8, (48, 40)), gen().integers(0, 256, (48, 40, 3)).astype(np.uint8), grey(np.uint16, 12, (48, 40))
    ic, T = imagecodecs, 'MONOCHROME2'
    return {'jpeg ls': (d, uid.JPEGLSLossless, ic.jpegls_encode(d), T, 12), 'jpeg ls colour': (c, uid.JPEGLSLossless, ic.jpegls_encode(c), 'RGB', 8),
            'jpeg lossless': (d, uid.JPEGLosslessSV1, ic.ljpeg_encode(d, bitspersample=12), T, 12),
            'jpeg lossless 8': (g, uid.JPEGLosslessSV1, ic.ljpeg_encode(g), T, 8),
            'jpeg 2000': (d, uid.JPEG2000Lossless, ic.jpeg2k_encode(d, level=0, bitspersample=12, codecformat='j2k', reversible=True), T, 12),
            'jpeg 2000 colour': (c, uid.JPEG2000Lossless, ic.jpeg2k_encode(c, level=0, codecformat='j2k', reversible=True), 'YBR_RCT', 8),
            'jpeg': (g, uid.JPEGBaseline8Bit, jpeg(g), T, 8), 'jpeg colour': (c, uid.JPEGBaseline8Bit, jpeg(c), 'YBR_FULL_422', 8)}

@pytest.mark.parametrize('name', packed())
def test_compressed_pixels(name, tmp_path):
    a, syntax, data, pi, bits = packed()[name]
    want = np.array(Image.open(io.BytesIO(data))) if syntax == uid.JPEGBaseline8Bit else a
    half = len(data)//2; half += half % 2
    for n, (frames, bot, parts) in enumerate([(1, True, 1), (3, True, 1), (3, False, 1), (3, True, 2), (1, False, 2)]):
        pixels = encapsulate([data]*frames, parts, has_bot=bot)
        src = dicom(tmp_path/f'{n}.dcm', a, pi, bits, syntax, frames, pixels=pixels); out = there_and_back(src, tmp_path/'b.dcm')
        b = pydicom.dcmread(tmp_path/'b.dcm')
        assert len(out) == frames and all((f == out[0]).all() for f in out) and b.file_meta.TransferSyntaxUID == uid.ExplicitVRLittleEndian
        stored = b.pixel_array.reshape(frames, *a.shape)
        assert np.abs(stored[0].astype(int) - want).max() <= (3 if name == 'jpeg colour' else 0) and (stored == stored[0]).all()
        assert b.BitsStored == bits and b.PhotometricInterpretation == ('RGB' if a.ndim == 3 else pi)
        assert (b.get('LossyImageCompression') == '01') == (syntax == uid.JPEGBaseline8Bit)

def test_run_lengths(tmp_path):
    for a, pi in ((grey(np.uint16, 12), 'MONOCHROME1'), (gen().integers(0, 9, (17, 23, 3)).astype(np.uint8), 'YBR_FULL')):
        ds = pydicom.dcmread(dicom(tmp_path/'a.dcm', a, pi, 12 if a.ndim == 2 else 8)); ds.compress(uid.RLELossless); ds.save_as(tmp_path/'r.dcm')
        frame, = there_and_back(tmp_path/'r.dcm', tmp_path/'b.dcm'); assert frame.flags.c_contiguous; b = pydicom.dcmread(tmp_path/'b.dcm')
        assert b.PixelData[:a.nbytes] == a.tobytes() and b.PhotometricInterpretation == pi

def test_all_that_pydicom_brings_along(tmp_path):
    "Its own test files: each is read as pydicom reads it, and written back the same, or refused in one line"
    folder = Path(pydicom.__file__).parent/'data'/'test_files'; read = 0
    if not folder.is_dir(): pytest.skip('this pydicom brings no test files along')
    for f in sorted(folder.glob('*.dcm')):
        with warnings.catch_warnings(record=True) as said:
            try:
                frames = there_and_back(f, tmp_path/'b.dcm'); read += 1
                with open_document(tmp_path/'b.dcm') as b: assert all(np.array_equal(x, y) for x, y in zip(frames, b)), f.name
            except ImageError as e: assert '\n' not in str(e) and f.name in str(e)
        assert not said, f.name
    assert read > 35

# DICOM: broken -------------------------------------------------------------------------------------------------------------

A = grey(np.uint16, 12, (40, 50))
G8 = grey(np.uint8, 8, (40, 50))
RLE_A = encapsulate([b'\1\0\0\0' + b'\x40\0\0\0' + bytes(56) + b'\x81\0'*8])
BROKEN = {
    'nothing in it': (lambda p: p.write_bytes(b''), 'an empty file'),
    'text': (lambda p: p.write_bytes(b'patient;eye\n' + NAME.encode()*99), ''),
    'zeros': (lambda p: p.write_bytes(bytes(5000)), ''),
    'only the mark': (lambda p: p.write_bytes(bytes(128) + b'DICM'), ''),
    'no pixels': (lambda p: dicom(p, A, without=['PixelData']), 'no pixels'),
    'no rows': (lambda p: dicom(p, A, without=['Rows']), 'Rows'),
    'rows 0': (lambda p: dicom(p, A, Rows=0), 'Rows'),
    'no bits': (lambda p: dicom(p, A, without=['BitsAllocated']), 'BitsAllocated'),
    'too few pixels': (lambda p: dicom(p, A, pixels=A.tobytes()[:-2]), 'cut off: 3998 bytes of 4000'),
    'rows announced': (lambda p: dicom(p, A, Rows=65535, Columns=65535), 'too many'),
    'frames announced': (lambda p: dicom(p, A, NumberOfFrames=2_000_000_000), 'cut off'),
    'frames in letters': (lambda p: dicom(p, A) and patch(p, b'(\0\x10\0US', b'(\0\x08\0IS\x02\0A1(\0\x10\0US'), 'NumberOfFrames'),
    'file cut': (lambda p: p.write_bytes(dicom(p, A).read_bytes()[:-999]), 'cut off'),
    'header cut': (lambda p: p.write_bytes(dicom(p, A).read_bytes()[:700]), ''),
    '32 bits': (lambda p: dicom(p, A.astype(np.uint32)), '32 bits'),
    '1 bit': (lambda p: dicom(p, A, alloc=1, bits=1), '1 bits'),
    'stored more than there is': (lambda p: dicom(p, A, bits=17), 'BitsStored'),
    'floats': (lambda p: dicom(p, A, without=['PixelData'], FloatPixelData=A.astype(np.float32).tobytes()), 'floating-point'),
    'four colours': (lambda p: dicom(p, A, pi='CMYK', SamplesPerPixel=4), 'colour space'),
    'no such colours': (lambda p: dicom(p, A, pi=NAME), 'colour space'),
    'no picture in the box': (lambda p: dicom(p, A, syntax=uid.JPEG2000Lossless, pixels=encapsulate([b'no picture'])), 'cannot be read'),
    'another size in the box': (lambda p: dicom(p, A, bits=12, syntax=uid.JPEGLSLossless,
                                pixels=encapsulate([imagecodecs.jpegls_encode(A[:20])])), 'another size'),
    'a huge size in the box': (lambda p: dicom(p, A, syntax=uid.JPEGLSLossless,
                                pixels=encapsulate([imagecodecs.jpegls_encode(A).replace(b'\0\x28\0\x32', b'\xff\xff\xff\xff')])),
                               'another size'),
    'runs that expand': (lambda p: dicom(p, A, syntax=uid.RLELossless, pixels=RLE_A, Rows=12000, Columns=12000), 'another size'),
    'box cut': (lambda p: p.write_bytes(dicom(p, A, syntax=uid.JPEGLSLossless,
                pixels=encapsulate([imagecodecs.jpegls_encode(A)])).read_bytes()[:-1500]), 'cut off'),
    'JPEG cut': (lambda p: dicom(p, G8, syntax=uid.JPEGBaseline8Bit, pixels=encapsulate([jpeg(G8)[:-99]])), 'frame 0 is cut off'),
    'JPEG-LS cut': (lambda p: dicom(p, G8, syntax=uid.JPEGLSLossless, pixels=encapsulate([imagecodecs.jpegls_encode(G8)[:-99]])), 'cannot be read'),
    'no such type': (lambda p: dicom(p, A) and patch(p, b'\xe0\x7f\x10\0OW', b'\xe0\x7f\x10\0OX'), 'type'),
    'fewer boxes': (lambda p: dicom(p, A, syntax=uid.JPEGLSLossless, pixels=encapsulate([imagecodecs.jpegls_encode(A)]*2), frames=7),
                    'announces 7 frames and holds 2'),
    'a film': (lambda p: dicom(p, A, syntax=uid.MPEG2MPML, pixels=encapsulate([b'\0\0\1\xb3' + bytes(99)])), 'MPEG2'),
    'no such syntax': (lambda p: dicom(p, A, syntax=uid.JPEG2000, pixels=encapsulate([b'x'*20])) and patch(p, b'10008.1.2.4.91', b'10008.1.2.4.99'),
                      'not known'),
}

def patch(p, old, new): b = p.read_bytes(); assert b.count(old) == 1, b.count(old); p.write_bytes(b.replace(old, new))

def refused(path, says, log=None):
    "The message of the one line that opening, reading or writing it gives; nothing of the patient in it or behind it"
    with warnings.catch_warnings(), pytest.raises(ImageError) as e:
        warnings.simplefilter('error')
        with open_document(path) as doc: doc.write(path.with_name('out' + doc.suffix), list(doc))
    whole = ''.join(traceback.format_exception(e.value)) + (log.text if log else '')
    assert str(path) in str(e.value) and '\n' not in str(e.value) and len(str(e.value)) < len(str(path)) + 160 and says in str(e.value), str(e.value)
    assert not (log and log.records), 'libraries keep quiet'
    assert NAME not in whole and '4711' not in whole and not path.with_name('out.dcm').exists()
    return str(e.value)

@pytest.mark.parametrize('name', BROKEN)
def test_broken_dicom_is_one_line(name, tmp_path, caplog):
    caplog.set_level(logging.DEBUG); make, says = BROKEN[name]; path = tmp_path/'a.dcm'
    with warnings.catch_warnings(): warnings.simplefilter('ignore'); make(path)
    caplog.clear(); refused(path, says, caplog)

def test_streams_without_an_end_do_not_hang(tmp_path):
    "CharLS waits for ever for the rest of some; in a process of its own"
    whole = imagecodecs.jpegls_encode(G8)
    for k in range(60, len(whole) - 2, 40): dicom(tmp_path/f'{k}.dcm', G8, syntax=uid.JPEGLSLossless, pixels=encapsulate([whole[:k]]))
    code = '''if 1:
        import pathlib, sys
        from hqgnet_nb.medical import open_document
        from hqgnet_nb.core import ImageError
        for p in pathlib.Path(sys.argv[1]).iterdir():
            try:
                with open_document(p) as d: d.frame(0)
            except ImageError: print('refused')'''
    p = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, timeout=1200)
    assert p.stdout.split() == ['refused']*len(list(tmp_path.iterdir())) and len(p.stdout) > 200, p.stdout + p.stderr

def test_what_deflates_beyond_measure_is_refused(tmp_path, monkeypatch):
    src = dicom(tmp_path/'a.dcm', np.zeros((2000, 2000), np.uint8), syntax=uid.DeflatedExplicitVRLittleEndian)
    with open_document(src) as doc: assert doc.frame(0).shape == (2000, 2000) and src.stat().st_size < 9000
    monkeypatch.setattr('hqgnet_nb.dicom.MOST_INFLATED', 3_000_000); refused(src, 'unpack it')

def test_threads_keep_quiet_together():
    "pydicom's log is one for all threads: one of them neither ends the silence of another nor makes it last"
    from hqgnet_nb.dicom import _quiet
    log, seen = logging.getLogger('pydicom'), []; before = log.level
    def second():
        with _quiet(): seen.append(log.level)
    t = threading.Thread(target=second)
    with _quiet(): t.start(); time.sleep(.2)
    t.join(); assert seen[0] > logging.CRITICAL and log.level == before

def test_names_stay_in_the_file(tmp_path, caplog):
    "Whatever else is wrong: neither facts nor errors nor logs repeat what a file says of its patient, in whichever element"
    caplog.set_level(logging.DEBUG)
    for k, more in enumerate([{}, dict(WindowCenter=10, WindowWidth=20), dict(PatientComments=NAME, ImageComments=NAME)]):
        src = dicom(tmp_path/f'{k}.dcm', A, bits=12, **more)
        for a, b in ((b'axial ', NAME[:6].encode()), (b'AXIAL', NAME[:5].encode())): patch(src, a, b)
        with warnings.catch_warnings(): warnings.simplefilter('error'); there_and_back(src, tmp_path/'o.dcm')
        with open_document(src) as doc:
            assert not re.search('DOE|JANE|4711|1970', repr(doc.facts)) and set(map(type, doc.facts.values())) <= {str, int, float, bool, list}
        b = pydicom.dcmread(tmp_path/'o.dcm'); assert (b.PatientName, b.PatientID) == (NAME, 'ID-4711'), 'but the output has its patient'
    src = dicom(tmp_path/'w.dcm', A, bits=12, WindowCenter=11111111, WindowWidth=100); patch(src, b'11111111', NAME.encode())
    with open_document(src) as doc: assert doc.frame(0).max() == 1 and 'window' not in doc.facts
    assert NAME not in caplog.text

def test_a_lie_about_its_size_costs_no_memory(tmp_path):
    "In a process that may not have more than half a gigabyte more than it has"
    g, huge = grey(np.uint8, 8, (8, 8)), dict(Rows=13000, Columns=13000)
    files = [dicom(tmp_path/'a.dcm', g, **huge),
             dicom(tmp_path/'b.dcm', g, syntax=uid.RLELossless, pixels=RLE_A, **huge), dicom(tmp_path/'c.dcm', g, NumberOfFrames=2**31 - 1),
             dicom(tmp_path/'d.dcm', g, syntax=uid.JPEGLSLossless,
                   pixels=encapsulate([imagecodecs.jpegls_encode(g).replace(b'\0\x08\0\x08', b'\xff\xff\xff\xff')]), **huge)]
    e = dicom(tmp_path/'e.dcm', g); b = e.read_bytes(); e.write_bytes(b.replace(b'LO\x08\0ID-4711 ', b'OB\0\0' + b'\xff\xff\xff\x7f' + b'ID-4'))
    files.append(e)
    big = nib.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)); nib.save(big, tmp_path/'n.nii'); nib.save(big, tmp_path/'m.nii.gz')
    n = tmp_path/'n.nii'; b = bytearray(n.read_bytes()); b[42:48] = struct.pack('<3h', 12000, 12000, 12000); n.write_bytes(b)
    m = tmp_path/'m.nii.gz'; b = bytearray(gzip.decompress(m.read_bytes())); b[42:48] = struct.pack('<3h', 12000, 12000, 12000)
    m.write_bytes(gzip.compress(bytes(b)))
    code = '''if 1:
        import resource, sys
        from hqgnet_nb.medical import open_document
        from hqgnet_nb.core import ImageError
        assert not {'pydicom', 'nibabel', 'av', 'fastai'} & set(sys.modules), 'the module alone is light'
        import pydicom.pixels, nibabel, imagecodecs, PIL.Image
        used = int(open('/proc/self/statm').read().split()[0])*resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + 2**29,)*2)
        for p in sys.argv[1:]:
            try:
                with open_document(p) as d: d.frame(0)
                print('read')
            except ImageError as e: print('MEMORY' if 'memory' in str(e).lower() else 'refused')'''
    if not Path('/proc/self/statm').exists(): pytest.skip('no way to limit memory here')
    p = subprocess.run([sys.executable, '-c', code, *map(str, files + [n, m])], capture_output=True, text=True)
    assert p.stdout.split() == ['refused']*7, p.stdout + p.stderr

# any document --------------------------------------------------------------------------------------------------------------

def test_writing_is_all_or_nothing(tmp_path):
    a = grey(np.uint16, 12, (3, 9, 8)); src = dicom(tmp_path/'a.dcm', a, bits=12, frames=3)
    v = tmp_path/'v.nii'; nib.save(nib.Nifti1Image(np.moveaxis(a, 0, -1).astype(np.int16), np.eye(4)), v)
    film(tmp_path/'f.mkv', 3, codec='ffv1', pix='bgr0'); write_image(tmp_path/'i.png', a[0])
    for src in (tmp_path/n for n in ('a.dcm', 'v.nii', 'f.mkv', 'i.png')):
        out = tmp_path/'out'/f'o{src.suffix}'; out.parent.mkdir(exist_ok=True); out.write_bytes(b'old')
        with open_document(src) as doc:
            good = list(doc)
            def stops(good=good):
                yield from good[:-1]
                raise RuntimeError('the network fell over')
            for frames, error in [(stops(), RuntimeError), (good[:-1], ImageError), (good + good[:1], ImageError), ([g[1:] for g in good], ImageError),
                                  ([g.astype(np.float64) for g in good], ImageError)]:
                with pytest.raises(error): doc.write(out, frames)
                assert out.read_bytes() == b'old' and len(list(out.parent.iterdir())) == 1
            if good[0].dtype == np.float32:
                for bad in (2, np.nan): pytest.raises(ImageError, doc.write, out, [g*np.float32(bad) for g in good])
            doc.write(out, good); first = out.read_bytes(); doc.write(out, iter(good)); assert out.read_bytes() == first, 'the same frames, the same bytes'
        out.unlink()

def test_a_full_disk_is_said(tmp_path):
    src = dicom(tmp_path/'a.dcm', grey(np.uint16, 12, (300, 300)), bits=12)
    nib.save(nib.Nifti1Image(gen().random((60, 60, 40)).astype(np.float32), np.eye(4)), tmp_path/'v.nii')
    film(tmp_path/'f.mkv', 9, codec='ffv1', pix='bgr0', size=(200, 200))
    code = '''if 1:
        import resource, signal, sys
        from hqgnet_nb.medical import open_document
        from hqgnet_nb.core import UserError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (50000, 50000))
        for p in sys.argv[2:]:
            with open_document(p) as d:
                try: d.write(sys.argv[1] + d.suffix, d)
                except UserError as e: print(str(e).splitlines()[0])'''
    p = subprocess.run([sys.executable, '-c', code, str(tmp_path/'out'/'o'), str(src), str(tmp_path/'v.nii'), str(tmp_path/'f.mkv')],
                       capture_output=True, text=True)
    assert p.stdout.count('cannot be written (File too large)') == 3 and not any((tmp_path/'out').iterdir()), p.stdout + p.stderr

def test_what_a_file_is_its_bytes_say(tmp_path):
    src = dicom(tmp_path/'a.dcm', A, bits=12); nib.save(nib.Nifti1Image(A.astype(np.int16), np.eye(4)), tmp_path/'v.nii'); film(tmp_path/'f.mp4', 3)
    write_image(tmp_path/'i.png', A)
    for name, kind in (('a.dcm', 'dicom'), ('v.nii', 'nifti'), ('f.mp4', 'video'), ('i.png', 'image')):
        for other in ('x.png', 'x.dcm', 'x.nii', 'x.mp4', 'x', 'x.7', 'Zoë 右 👁.dat', 'two\nlines.tif'):
            p = tmp_path/other; p.write_bytes((tmp_path/name).read_bytes())
            with open_document(p) as doc: assert doc.kind == doc.facts['kind'] == kind and doc.n == len(doc)
    (tmp_path/'two\nlines.dcm').write_bytes(b'x'); (tmp_path/'no.mp4').write_bytes(b'#EXTM3U\nhttp://127.0.0.1/x')
    (tmp_path/'no.bin').write_bytes(b'nothing at all')
    for p in ('two\nlines.dcm', 'no.mp4', 'no.bin', 'none', '.'):
        with pytest.raises(ImageError) as e: open_document(tmp_path/p)
        assert '\n' not in str(e.value)
    old = tmp_path/'old.dcm'; b = src.read_bytes(); old.write_bytes(b[144 + int.from_bytes(b[140:144], 'little'):])      # no preamble, no meta header
    with open_document(old) as x, open_document(src) as y: assert np.array_equal(x.frame(0), y.frame(0))
    there_and_back(old, tmp_path/'o.dcm'); assert raw(tmp_path/'o.dcm') == raw(src)

@pytest.mark.parametrize('img', [A, grey(np.uint8, 8, (9, 8, 3)), gen().random((9, 8)).astype(np.float32)], ids=['16 bit', 'colour', 'float'])
def test_plain_images_are_documents_too(img, tmp_path):
    write_image(tmp_path/'a.tif', img)
    with open_document(tmp_path/'a.tif') as doc:
        assert np.array_equal(doc.frame(0), img) and (doc.n, doc.kind) == (1, 'image'); pytest.raises(IndexError, doc.frame, 1)
        doc.write(tmp_path/f'b{doc.suffix}', doc); assert np.array_equal(read_image(tmp_path/f'b{doc.suffix}'), img)
        for n, says in ((0, ': 0 frames to be written; it has 1$'), (2, ': more than 1 frame to be written; it has 1$')):
            with pytest.raises(ImageError, match=says): doc.write(tmp_path/'c.tif', [img]*n)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path/'f.gif', save_all=True, append_images=[Image.fromarray(np.full((9, 9), 9, np.uint8))])
    with pytest.raises(ImageError, match='holds 2 frames'): open_document(tmp_path/'f.gif')

def test_a_folder_is_listed_in_natural_order(tmp_path):
    one = dicom(tmp_path/'z.dcm', A, bits=12).read_bytes(); (tmp_path/'z.dcm').unlink()
    yes = ['2/IM1', '2/1.2.840.113', '10/IM2', '10/IM10', 'a.png', 'b.DCM', 'c.ima', 'd.nii', 'e.nii.gz', 'f.MP4', 'g.webm', 'h.jpeg']
    no = ['DICOMDIR', '.hidden.dcm', '.git/x.dcm', 'notes.txt', 'table.gz', 'i.dcm.part', 'README']
    for n in yes + no: (tmp_path/n).parent.mkdir(exist_ok=True); (tmp_path/n).write_bytes(b'text' if n in ('README', 'table.gz') else one)
    (tmp_path/'2'/'loop').symlink_to(tmp_path); (tmp_path/'folder.dcm').mkdir()
    got = [p.relative_to(tmp_path).as_posix() for p in list_documents(tmp_path)]
    assert sorted(got) == sorted(yes) and got.index('10/IM2') < got.index('10/IM10') and got.index('2/IM1') < got.index('10/IM2')
    assert list_documents(tmp_path/'notes.txt') == [tmp_path/'notes.txt']
    for bad in (tmp_path/'folder.dcm', tmp_path/'nowhere'): pytest.raises(UserError, list_documents, bad)

# NIfTI ---------------------------------------------------------------------------------------------------------------------

AFFINE = np.array([[-2, 0, 0, 10], [0, -3, .1, 5], [0, 0, 4, -7], [0, 0, 0, 1.]])
def nifti(path, v, kind=nib.Nifti1Image, slope=None, endian='<', affine=AFFINE, **fields):
    hdr = (nib.Nifti2Header if kind is nib.Nifti2Image else nib.Nifti1Header)(endianness=endian)
    img = kind(v, affine, hdr); img.header.set_data_dtype(v.dtype); img.header['descrip'] = NAME.encode()
    for k, x in fields.items(): img.header[k] = x
    if slope: img.header.set_slope_inter(*slope)
    img.header.extensions.append(nib.nifti1.Nifti1Extension('comment', b'kept')); nib.save(img, path)
    return path

VOLUMES = {d: lambda d=d: gen().normal(0 if np.dtype(d).kind != 'u' else 90, 20, (9, 7, 5)).astype(d) for d in 'u1 i1 i2 u2 i4 u4 i8 u8 f4 f8'.split()}
VOLUMES['4-D'] = lambda: gen().integers(-5, 999, (9, 7, 5, 4)).astype(np.int16)
VOLUMES['2-D'] = lambda: gen().integers(-5, 999, (9, 7)).astype(np.int16)
VOLUMES['RGB'] = lambda: gen().integers(0, 256, (9, 7, 5, 3)).astype(np.uint8).view([('R', 'u1'), ('G', 'u1'), ('B', 'u1')])[..., 0]
VOLUMES['NaN'] = lambda: np.where(gen().random((9, 7, 5)) > .3, gen().normal(0, 9, (9, 7, 5)), np.nan).astype(np.float32)

@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('name', VOLUMES)
def test_volumes_come_back_byte_for_byte(name, suffix, tmp_path):
    v = VOLUMES[name](); unzip = gzip.decompress if suffix == '.nii.gz' else bytes
    for kind, endian in ((nib.Nifti1Image, '<'), (nib.Nifti1Image, '>'), (nib.Nifti2Image, '<')):
        src = nifti(tmp_path/f'a{suffix}', v, kind, endian=endian); out = tmp_path/f'b{suffix}'; frames = there_and_back(src, out)
        assert unzip(src.read_bytes()) == unzip(out.read_bytes()) and (suffix == '.nii' or out.read_bytes()[4:8] == bytes(4)), 'no time of day in it'
        assert frames[0].shape[:2] == (7, 9) and len(frames) == math.prod(v.shape[2:])
        there_and_back(src, out, lambda f: (f//2 if f.dtype == np.uint8 else f/2).astype(f.dtype)); b = nib.load(out); h = nib.load(src).header
        assert b.header.binaryblock == h.binaryblock and np.array_equal(b.affine, nib.load(src).affine) and b.header.extensions == h.extensions
        w = np.asanyarray(b.dataobj); assert w.dtype == v.dtype.newbyteorder(endian) or w.dtype == v.dtype
        if name == 'RGB': assert all((w[c] == v[c]//2).all() for c in 'RGB'); continue
        lo, hi = np.nanmin(v).astype(float), np.nanmax(v).astype(float); ok = np.isfinite(v)
        assert np.abs(w[ok] - (lo + (v[ok].astype(float) - lo)/2)).max() <= (.5001 if v.dtype.kind != 'f' else 1e-4*(hi - lo)) and np.isnan(w[~ok]).all()

def test_slices_are_upright_and_scaled_by_the_volume(tmp_path):
    v = np.zeros((6, 5, 3), np.int16); v[4, 1, 2] = 1000; v[0, 0, 0] = -200                  # at right 4, front 1, above 2 of an RAS volume
    frames = there_and_back(nifti(tmp_path/'a.nii', v, affine=np.eye(4)), tmp_path/'b.nii')
    assert frames[2].max() == 1 == frames[2][5 - 1 - 1, 6 - 1 - 4] and frames[0].min() == 0 == frames[0][4, 5] and np.allclose(frames[1], 200/1200)
    turned = there_and_back(nifti(tmp_path/'a.nii', v, affine=np.diag([-1, -1, 1, 1])), tmp_path/'b.nii')
    assert turned[2][1, 4] == 1, 'to the left and back: as stored'
    down = there_and_back(nifti(tmp_path/'a.nii', v, slope=(-2, 5), affine=np.eye(4)), tmp_path/'b.nii'); assert np.allclose(down[2], 1 - frames[2], atol=1e-6)
    with open_document(nifti(tmp_path/'a.nii', v, cal_min=0, cal_max=500)) as doc:
        assert doc.frame(0).max() == doc.frame(0).min() == 0 and doc.facts['orientation'] == 'LPS'
        assert np.allclose(doc.facts['spacing'], [2, 3, 4], atol=.01) and NAME not in str(doc.facts)
        doc.write(tmp_path/'b.nii', [np.minimum(f + np.float32(.1), 1) for f in doc]); w = np.asanyarray(nib.load(tmp_path/'b.nii').dataobj)
        assert w[0, 0, 0] == -150 and w[4, 1, 2] == 1000 and w[1, 1, 1] == 50, 'beyond what is shown, values go on'

def test_volumes_that_lie_nowhere_and_numbers_without_measure(tmp_path):
    v = gen().normal(0, 9, (9, 7, 2)); v[2, 3, 0] = np.nan
    for affine in (np.full((4, 4), np.nan), np.full((4, 4), np.inf), np.zeros((4, 4))):
        with warnings.catch_warnings(): warnings.simplefilter('ignore'); src = nifti(tmp_path/'a.nii', v, affine=np.eye(4))
        b = bytearray(src.read_bytes()); b[252:256], b[280:328] = struct.pack('<2h', 0, 1), affine[:3].astype('<f4').tobytes(); src.write_bytes(b)
        frames = there_and_back(src, tmp_path/'b.nii'); assert src.read_bytes() == (tmp_path/'b.nii').read_bytes()
        assert np.allclose(frames[1], (v[..., 1].T - np.nanmin(v))/np.nanmax(v - np.nanmin(v)), atol=1e-6), 'as stored'
    down, = [there_and_back(nifti(tmp_path/'a.nii', v, slope=(-2, 5), affine=np.diag([-1, -1, 1, 1])), tmp_path/'b.nii')]
    assert down[0][3, 2] == 0, 'NaN is black, whichever way the scale runs'
    v[0, 0, 0], v[1, 1, 1] = np.finfo(float).max, np.finfo(float).min; src = nifti(tmp_path/'a.nii', v, affine=np.diag([-1, -1, 1, 1]))
    frames = there_and_back(src, tmp_path/'b.nii'); assert (frames[0][0, 0], frames[1][1, 1], frames[0][5, 5]) == (1, 0, .5)
    with warnings.catch_warnings(): warnings.simplefilter('error'); there_and_back(src, tmp_path/'b.nii', lambda f: np.sqrt(f))
    w = np.asanyarray(nib.load(tmp_path/'b.nii').dataobj); assert np.isfinite(w).sum() == v.size - 1 and w[0, 0, 0] == v[0, 0, 0]

BROKEN_NIFTI = {
    'empty': (lambda b: b'', 'an empty file'), 'header cut': (lambda b: b[:300], 'not a NIfTI'), 'voxels cut': (lambda b: b[:-1], 'cut off'),
    'zeros': (lambda b: bytes(2000), ''),
    'size 0': (lambda b: b[:42] + bytes(2) + b[44:], 'shape'), 'size -1': (lambda b: b[:42] + b'\xff\xff' + b[44:], 'shape'),
    'no axes': (lambda b: b[:40] + bytes(2) + b[42:], ''),
    '99 axes': (lambda b: b[:40] + b'\x63\0' + b[42:], ''), 'complex': (lambda b: b[:70] + b'\x20\0' + b[72:], 'complex64'),
    'no such type': (lambda b: b[:70] + b'\x63\0' + b[72:], ''),
    'huge': (lambda b: b[:42] + b'\xff\x7f'*3 + b[48:], 'too many'), 'voxels nowhere': (lambda b: b[:108] + struct.pack('<f', np.nan) + b[112:], ''),
    'voxels before': (lambda b: b[:108] + struct.pack('<f', 2) + b[112:], 'where its voxels are'),
    'voxels behind': (lambda b: b[:108] + struct.pack('<f', 9e6) + b[112:], 'cut off'),
    'a pair': (lambda b: b[:344] + b'ni1\0' + b[348:], 'pair')}

@pytest.mark.parametrize('suffix', ['.nii', '.nii.gz'])
@pytest.mark.parametrize('name', BROKEN_NIFTI)
def test_broken_volumes_are_one_line(name, suffix, tmp_path):
    b = nifti(tmp_path/'a.nii', VOLUMES['i2']()).read_bytes(); change, says = BROKEN_NIFTI[name]; p = tmp_path/f'x{suffix}'
    b = change(b); p.write_bytes(gzip.compress(b) if suffix == '.nii.gz' else b)
    refused(p, '' if suffix == '.nii.gz' and name in ('empty', 'voxels cut', 'voxels behind') else says)
    if suffix == '.nii.gz' and b:
        for bad in (gzip.compress(b)[:-30], gzip.compress(b)[:-8] + bytes(8), b'\x1f\x8b'): p.write_bytes(bad); refused(p, '')

# video ---------------------------------------------------------------------------------------------------------------------

def scene(size, n):
    y, x = np.mgrid[:size[0], :size[1]]
    return [np.stack([128 + 90*np.sin((x + 3*k)/9), 110 + 80*np.cos(y/11), 90 + 40*np.sin((x + y)/17)], -1).clip(0, 255).astype(np.uint8) for k in range(n)]

def film(path, n=8, size=(64, 96), codec='libx264', pix='yuv420p', rate=25, times=None, base=None, turn=0, sound=False, options=None, matrix=None):
    frames = scene(size, n)
    with av.open(str(path), 'w') as c:
        s = c.add_stream(codec, rate=rate, options=options or {}); s.height, s.width = size; s.pix_fmt = pix; base = base or Fraction(1, rate)
        s.codec_context.time_base = base
        if turn: s.set_display_rotation(turn)
        if matrix: s.codec_context.colorspace, s.codec_context.color_range = matrix, 1
        if sound: a = c.add_stream('aac', rate=16000)
        for k, f in enumerate(frames):
            f = av.VideoFrame.from_ndarray(f, format='rgb24').reformat(format=pix, dst_colorspace=matrix); f.time_base, f.pts = base, times[k] if times else k
            for p in s.encode(f): c.mux(p)
        for p in s.encode(None): c.mux(p)
        if sound:
            f = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format='fltp', layout='mono'); f.rate, f.pts = 16000, 0
            for p in [*a.encode(f), *a.encode(None)]: c.mux(p)
    return frames

def shown(path):
    "(times in seconds, number of streams) of a film, by PyAV alone"
    with av.open(str(path)) as c: return [float(f.pts*f.time_base) for f in c.decode(video=0)], len(c.streams)

FILMS = {'h264.mp4': {}, 'h264.mov': {}, 'mpeg4.avi': dict(codec='mpeg4'), 'mjpeg.avi': dict(codec='mjpeg', pix='yuvj420p'),
         'vp9.webm': dict(codec='libvpx-vp9', options={'deadline': 'realtime'}),
         'h264.mkv': dict(pix='yuv444p'), 'bt709.mp4': dict(matrix=1), '2997.mp4': dict(rate=30, base=Fraction(1001, 30000))}

@pytest.mark.parametrize('name', FILMS)
def test_films_come_back(name, tmp_path):
    film(tmp_path/name, **FILMS[name])
    for out, worst in ((tmp_path/'o.mkv', 0), (tmp_path/'o.mp4', 2)):
        frames = there_and_back_film(tmp_path/name, out)
        with open_document(out) as o:
            again = list(o); assert again[0].shape == frames[0].shape and o.facts['fps'] == pytest.approx(doc_rate(tmp_path/name), rel=1e-3)
        assert np.abs(np.stack(again).astype(int) - frames).mean() <= worst and np.abs((np.stack(again).astype(int) - frames).mean((0, 1, 2))).max() <= .3*worst
        (a, _), (b, n) = shown(tmp_path/name), shown(out); assert n == 1 and len(a) == len(b) == 8 and np.allclose(np.diff(a), np.diff(b), atol=.0015)

def there_and_back_film(src, out):
    with open_document(src) as doc: frames = list(doc); doc.write(out, (doc.frame(k) for k in range(doc.n)))
    return frames

def doc_rate(path):
    with open_document(path) as doc: return doc.facts['fps']

def test_what_is_lossless_stays_so(tmp_path):
    for pix, size in (('bgr0', (65, 97)), ('bgr0', (64, 96)), ('gray', (63, 31)), ('gray16le', (64, 96)), ('yuv420p', (64, 96)), ('rgb48le', (31, 33))):
        want = film(tmp_path/'a.mkv', size=size, codec='ffv1', pix=pix)
        with open_document(tmp_path/'a.mkv') as doc:
            assert doc.suffix == '.mkv' and doc.frame(0).dtype == (np.uint16 if '16' in pix or '48' in pix else np.uint8)
        frames = there_and_back_film(tmp_path/'a.mkv', tmp_path/'b.mkv')
        with open_document(tmp_path/'b.mkv') as o: assert all(np.array_equal(x, y) for x, y in zip(o, frames))
        if pix == 'bgr0': assert all(np.array_equal(x, y) for x, y in zip(want, frames))
    film(tmp_path/'odd.mkv', size=(65, 97), codec='ffv1', pix='bgr0'); frames = there_and_back_film(tmp_path/'odd.mkv', tmp_path/'odd.mp4')
    with open_document(tmp_path/'odd.mp4') as o: assert o.facts['shape'] == [65, 97, 3] and np.abs(o.frame(3).astype(int) - frames[3]).mean() < 2

def test_uneven_times_are_kept(tmp_path):
    film(tmp_path/'a.mp4', times=[0, 3600, 5000, 9000, 20000, 21000, 30000, 90000], base=Fraction(1, 90000)); want, _ = shown(tmp_path/'a.mp4')
    with open_document(tmp_path/'a.mp4') as doc: assert not doc.facts['even']
    for out in ('b.mp4', 'b.mkv'): there_and_back_film(tmp_path/'a.mp4', tmp_path/out); assert np.allclose(shown(tmp_path/out)[0], want, atol=.001)

def test_a_telephone_held_upright_and_its_sound(tmp_path):
    a, b = film(tmp_path/'a.mp4', sound=True), tmp_path/'b.mp4'
    raw = (tmp_path/'a.mp4').read_bytes(); at = raw.index(b'tkhd') + 44; one = 0x10000            # the matrix of the track: turned right by 90°
    b.write_bytes(raw[:at] + struct.pack('>9i', 0, one, 0, -one, 0, 0, 64*one, 0, 0x40000000) + raw[at + 36:])
    with open_document(b) as doc:
        assert doc.facts['shape'] == [96, 64, 3] and np.abs(doc.frame(2).astype(int) - np.rot90(a[2], -1)).mean() < 3 and len(doc.facts['notes']) == 2
        doc.write(tmp_path/'c.mp4', doc)
    with open_document(tmp_path/'c.mp4') as c: assert c.facts['shape'] == [96, 64, 3] and 'notes' not in c.facts and shown(tmp_path/'c.mp4')[1] == 1

def test_frames_in_any_order_and_one_at_a_time(tmp_path):
    film(tmp_path/'a.mp4', 60, options={'g': '12', 'bf': '3'})
    with open_document(tmp_path/'a.mp4') as doc:
        frames = list(doc); assert all(np.array_equal(doc.frame(k), frames[k]) for k in (59, 0, 13, 12, 12, 40)) and doc.n == 60
        pytest.raises(IndexError, doc.frame, 60); pytest.raises(ImageError, doc.write, tmp_path/'o.avi', doc)

@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi', 'a.webm'])
def test_broken_films_are_one_line(name, tmp_path, capfd):
    film(tmp_path/name, 12, **{'a.avi': dict(codec='mpeg4'), 'a.webm': FILMS['vp9.webm']}.get(name, {})); b = (tmp_path/name).read_bytes(); g = gen(); ends = 0
    for k in range(40):
        c = bytearray(b[:g.integers(1, len(b))] if k < 15 else b); bad = tmp_path/f'{k}{Path(name).suffix}'
        if k >= 15: c[g.integers(len(c)) if k < 30 else g.integers(300)] = g.integers(256)
        bad.write_bytes(c)
        try:
            with open_document(bad) as doc: assert all(f.shape == (64, 96, 3) for f in doc) or k >= 15
        except ImageError as e: ends += 1; assert '\n' not in str(e) and str(bad) in str(e)
    assert ends > 5 and capfd.readouterr() == ('', ''), 'and FFmpeg keeps quiet'

@pytest.mark.parametrize('name', ['a.mkv', 'a.avi', 'a.mov', 'a.mp4', 'a.webm'])
def test_half_a_film_is_none(name, tmp_path):
    film(tmp_path/name, 24, **{'a.avi': dict(codec='mjpeg', pix='yuvj420p'), 'a.webm': FILMS['vp9.webm']}.get(name, {})); b = (tmp_path/name).read_bytes()
    for share in (.5, .9):
        (tmp_path/name).write_bytes(b[:int(share*len(b))])
        with pytest.raises(ImageError, match='cut off' if name in ('a.mkv', 'a.avi', 'a.webm') else 'cannot be read'): open_document(tmp_path/name)
    if name == 'a.mkv':                                            # written to a pipe, it does not know its length
        at = b.index(b'\x18\x53\x80\x67') + 4; (tmp_path/name).write_bytes(b[:at] + b'\x01' + b'\xff'*7 + b[at + 8:])
        with open_document(tmp_path/name) as doc: assert doc.n == 24

def test_what_is_missing_is_named(tmp_path, monkeypatch):
    dicom(tmp_path/'a.dcm', A, bits=12); nifti(tmp_path/'a.nii', VOLUMES['i2']()); film(tmp_path/'a.mp4', 2)
    for name, module, extra in (('a.dcm', 'pydicom', 'medical'), ('a.nii', 'nibabel', 'medical'), ('a.mp4', 'av', 'video')):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(UserError, match=rf"{module}: pip install 'hqgnet_nb\[{extra}\]'"): open_document(tmp_path/name)

def test_a_file_that_mentions_the_deflated_syntax_is_not_taken_for_deflated(tmp_path):
    a = gen().integers(0, 4096, (12, 10)).astype(np.uint16)
    f = dicom(tmp_path/'a.dcm', a, StudyDescription='1.2.840.10008.1.2.1.99'); assert b'1.2.1.99' in f.read_bytes()[:1024]
    with open_document(f) as doc: assert doc.frame(0).shape == a.shape

def test_each_frame_with_a_window_of_its_own_keeps_few_tables(tmp_path):
    n = 40; a = gen().integers(0, 4096, (n, 6, 5)).astype(np.uint16); per = []
    for k in range(n):
        w, one = Dataset(), Dataset(); w.WindowCenter, w.WindowWidth = 1000 + 10*k, 500; one.FrameVOILUTSequence = [w]; per.append(one)
    f = dicom(tmp_path/'a.dcm', a, frames=n, PerFrameFunctionalGroupsSequence=per)
    with open_document(f) as doc:
        for k in (*range(n), 0, n - 1): np.testing.assert_allclose(doc.frame(k), np.clip((a[k] - (1000 + 10*k - .5))/499 + .5, 0, 1), atol=1e-4)
        assert len(doc._curves) <= 32

def test_an_avi_that_counts_the_bytes_of_its_own_head(tmp_path):
    film = tmp_path/'a.avi'
    with av.open(film, 'w') as c:
        s = c.add_stream('mjpeg', rate=25); s.width, s.height, s.pix_fmt = 32, 32, 'yuvj420p'
        for k in range(3): [c.mux(p) for p in s.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 60*k, np.uint8)))]
        [c.mux(p) for p in s.encode()]
    data = bytearray(film.read_bytes()); size = int.from_bytes(data[4:8], 'little'); data[4:8] = (size + 8).to_bytes(4, 'little'); film.write_bytes(data)
    with open_document(film) as doc: assert doc.n == 3
    film.write_bytes(data[:-200])
    with pytest.raises(ImageError, match='cut off'): open_document(film)

def test_one_value_where_there_should_be_several(tmp_path):
    "pydicom gives a value alone without a list: it is a word, not its letters; and the other way round"
    from hqgnet_nb.document import _write_dicom
    stored = np.arange(64*64, dtype=np.int16).reshape(64, 64) % 4096
    for k, (given, then) in enumerate([('ORIGINAL', []), (['ORIGINAL', 'PRIMARY'], []), (['ORIGINAL', 'PRIMARY', 'AXIAL'], ['AXIAL']), ([], [])]):
        _write_dicom(tmp_path/f'{k}.dcm', stored, ImageType=given, SeriesDescription=['chest', 'thin'][:1 + k % 2])
        with open_document(tmp_path/f'{k}.dcm') as d: d.write(tmp_path/f'new {k}.dcm', iter(d))
        new = pydicom.dcmread(tmp_path/f'new {k}.dcm'); assert list(new.ImageType) == ['DERIVED', 'SECONDARY', *then], given
        assert new.SeriesDescription == ('chest thin enhanced' if k % 2 else 'chest enhanced')

def test_frames_of_enhanced_objects_are_derived_too(tmp_path):
    "The type of each frame, whatever kind of object, and the frame that it was made from; further values stay"
    from hqgnet_nb.document import _write_dicom
    def item(**of):
        ds = Dataset()
        for k, v in of.items(): setattr(ds, k, v)
        return ds
    kind = lambda *more: [item(FrameType=['ORIGINAL', 'PRIMARY', *more], PixelPresentation='MONOCHROME')]
    shared = item(MRImageFrameTypeSequence=kind('M', 'NONE'), DerivationImageSequence=[item(DerivationDescription='older')])
    more = dict(XRay3DFrameTypeSequence=[item(FrameType='ORIGINAL')], FrameContentSequence=[item(FrameComments='kept')])
    per = [item(CTImageFrameTypeSequence=kind('VOLUME'), **more) for _ in range(3)]
    stored = (np.arange(3*64*64).reshape(3, 64, 64) % 4096).astype(np.int16)
    _write_dicom(tmp_path/'a.dcm', stored, SharedFunctionalGroupsSequence=[shared], PerFrameFunctionalGroupsSequence=per)
    with open_document(tmp_path/'a.dcm') as d: d.write(tmp_path/'b.dcm', iter(d))
    new = pydicom.dcmread(tmp_path/'b.dcm'); old = pydicom.dcmread(tmp_path/'a.dcm'); first = new.SharedFunctionalGroupsSequence[0]
    assert list(first.MRImageFrameTypeSequence[0].FrameType) == ['DERIVED', 'SECONDARY', 'M', 'NONE'] and 'DerivationImageSequence' not in first
    assert len(new.PerFrameFunctionalGroupsSequence) == 3
    for k, g in enumerate(new.PerFrameFunctionalGroupsSequence, 1):
        assert list(g.CTImageFrameTypeSequence[0].FrameType) == ['DERIVED', 'SECONDARY', 'VOLUME'] and g.FrameContentSequence[0].FrameComments == 'kept'
        assert list(g.XRay3DFrameTypeSequence[0].FrameType) == ['DERIVED', 'SECONDARY']
        how, = g.DerivationImageSequence; source, = how.SourceImageSequence
        assert (source.ReferencedSOPInstanceUID, source.ReferencedSOPClassUID, source.ReferencedFrameNumber) == (old.SOPInstanceUID, old.SOPClassUID, k)
        assert how.DerivationCodeSequence[0].CodeMeaning and source.PurposeOfReferenceCodeSequence[0].CodeValue == '121322'

def test_ten_bits_stay_ten(tmp_path):
    "Films of 10 and 12 bits come back with as many; what is not changed is the same, and a step of one of their levels is not lost"
    for pix, out, bits, size in (('gray10le', 'gray10le', 10, (63, 31)), ('gbrp10le', 'gbrp10le', 10, (64, 96)), ('yuv420p10le', 'gbrp10le', 10, (64, 96)),
                                 ('gray12le', 'gray12le', 12, (64, 96))):
        film(tmp_path/'a.mkv', n=4, size=size, codec='ffv1', pix=pix); frames = there_and_back_film(tmp_path/'a.mkv', tmp_path/'b.mkv')
        assert frames[0].dtype == np.uint16 and len(np.unique(np.stack(frames))) > 50
        with av.open(str(tmp_path/'b.mkv')) as c: assert c.streams.video[0].codec_context.pix_fmt == out
        with open_document(tmp_path/'b.mkv') as o: assert o.facts['depth'] == bits and all(np.array_equal(x, y) for x, y in zip(o, frames)), pix
        step = [np.where(f > 32768, f.astype(int) - 65535/(2**bits - 1), f.astype(int) + 65535/(2**bits - 1)).round().astype(np.uint16) for f in frames]
        with open_document(tmp_path/'a.mkv') as doc: doc.write(tmp_path/'c.mkv', step); doc.write(tmp_path/'d.mp4', frames)
        with open_document(tmp_path/'c.mkv') as o: assert all((np.rint(np.abs(x.astype(int) - y)/2**(16 - bits)) == 1).all() for x, y in zip(o, frames)), pix
        if size[0] % 2 == 0:
            light = lambda f: f.reshape(64, 96, -1).mean(-1)
            with open_document(tmp_path/'d.mp4') as o: assert o.facts['depth'] == 10 and np.abs(light(o.frame(1)) - light(frames[1])).mean() < 800, pix
