// The demos of notebook 16, without a framework. `model` is what anywidget gives, or `still` below, which answers from pictures made before; both know
// get, on and send.

const make = (tag, attrs = {}, ...kids) => {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs)) {
    if (k.startsWith('on')) e.addEventListener(k.slice(2), v);
    else if (v === true) e.setAttribute(k, '');
    else if (v !== false && v != null) e.setAttribute(k, v);
  }
  if (['input', 'select', 'button'].includes(tag) || 'tabindex' in attrs) e.setAttribute('data-lm-suppress-shortcuts', 'true');     // JupyterLab takes arrow keys for its own
  e.append(...kids.filter(k => k != null));
  return e;
};
let ids = 0;
const own = Math.random().toString(36).slice(2, 8);      // several demos of a page each load this file: their labels must not meet
const name = what => `hqgnet-${what}-${own}-${ids++}`;
const labelled = (text, input) => { input.id ||= name('input'); return make('div', {}, make('label', {for: input.id}, text), input); };
const bytes = b => b instanceof Blob ? b : new Blob([b.buffer ? new Uint8Array(b.buffer, b.byteOffset, b.byteLength) : b]);
const decode = b => createImageBitmap(bytes(b));
const size = (c, w, h) => { c.width = w; c.height = h; c.style.maxWidth = `calc(85vh*${w/h})`; };      // a tall image is no taller than the screen
const percent = v => `${Math.round(100*v)} %`;

// Questions go out one at a time, answers are shown one after another. Of the questions that wait for their turn, a picture or another image gives way to a
// newer one of its kind; what was asked for once, such as saving, is never dropped. A question may consist of several messages and has one answer.
function talk(model, hear, say) {
  let busy = false, shown = Promise.resolve(), slow = 0, waiting = [];
  const calm = () => { clearTimeout(slow); if (slow === -1) say(''); slow = 0; };
  const next = () => {
    if (busy || !waiting.length) return;
    busy = true; waiting.shift().forEach(([m, buffers]) => model.send(m, undefined, buffers || []));
    slow = setTimeout(() => { slow = -1; say('Still waiting for an answer. If none comes, the connection is lost: load the page again.'); }, 20000);
  };
  model.on('msg:custom', (m, buffers) => {
    if (m.type !== 'note') { calm(); busy = false; }
    shown = shown.then(() => hear(m, buffers || [])).catch(e => say(`This could not be shown (${e.name}).`, true));
    next();
  });
  return (m, messages = [[m]]) => {
    if (m.type === 'render' || m.type === 'image') waiting = waiting.filter(w => w[0][0].type !== m.type);
    waiting.push(messages); next();
  };
}

async function upload(file, setup, say, ask, what) {             // in pieces: servers limit a message's size
  if (file.size > setup.max_mb*1e6) return say(`${file.name}: ${(file.size/1e6).toFixed(1)} MB; at most ${setup.max_mb} MB can be shown here.`, true);
  say(`Reading ${file.name} …`);
  const all = await file.arrayBuffer().catch(() => null), piece = 2**20; if (!all) return say(`${file.name}: cannot be read.`, true);
  const parts = Math.max(1, Math.ceil(all.byteLength/piece)), m = {type: 'upload', what, name: file.name, parts};
  ask(m, Array.from({length: parts}, (_, part) => [{...m, part}, [all.slice(part*piece, (part + 1)*piece)]]));
}

function download(data, filename, type) {
  const a = make('a', {href: URL.createObjectURL(new Blob([bytes(data)], {type})), download: filename});
  document.body.append(a); a.click(); a.remove(); setTimeout(() => URL.revokeObjectURL(a.href), 10000);
}

function words(root) {                                             // what went wrong is said at once, the rest when there is time
  const calm = make('div', {role: 'status'}), loud = make('div', {role: 'alert'}); root.append(make('div', {class: 'words'}, calm, loud));
  return (text, bad = false) => { calm.textContent = bad ? '' : text; loud.textContent = bad ? text : ''; };
}

// before and after, a split between them, strength, guide, maps, numbers
function strength(model, root) {
  const setup = model.get('setup'), state = {strength: setup.strength, guide: 0, overlay: 'none', split: .5}, pics = {}; let at = 0, saving = false;
  const canvas = make('canvas', {role: 'img', 'aria-label': 'the image before (left of the split) and after enhancement'});
  const tags = [make('span', {class: 'corner left'}, 'before'), make('span', {class: 'corner right'}, 'after')];
  const screen = make('div', {class: 'screen split'}, canvas, ...tags);
  const split = make('input', {type: 'range', min: 0, max: 100, value: 50, step: 1, 'aria-valuetext': '50 %', 'aria-label': 'Split: share of the picture that shows the image before'});
  const dial = make('input', {type: 'range', min: 0, max: 1, step: .01, value: state.strength});
  const shown = make('output', {}, percent(state.strength)), numbers = make('dl', {'aria-label': 'Numbers for this picture'}), key = make('div', {class: 'key'});
  const draw = () => {
    const b = pics.before, a = pics.after || b; if (!b) return;
    size(canvas, b.width, b.height); const g = canvas.getContext('2d'), x = Math.round(state.split*b.width);
    g.imageSmoothingQuality = 'high'; g.drawImage(a, 0, 0, b.width, b.height);
    if (pics.over && state.overlay !== 'none') g.drawImage(pics.over, 0, 0, b.width, b.height);
    if (x) g.drawImage(b, 0, 0, x, b.height, 0, 0, x, b.height);
    g.fillStyle = '#fff'; g.fillRect(x - 1, 0, 2, b.height); g.fillStyle = '#000'; g.fillRect(x + 1, 0, 1, b.height);
    split.setAttribute('aria-valuetext', percent(state.split)); tags[0].hidden = state.split < .12; tags[1].hidden = state.split > .88;
    root.dataset.drawn = 1 + (+root.dataset.drawn || 0);
  };
  const old = yes => [numbers, key].forEach(e => e.setAttribute('aria-busy', yes));      // they tell of another picture than the one that is shown
  const ask = talk(model, async (m, buffers) => {
    if (m.type === 'error') { say(m.text, true); image.value = at; return; }       // the image that is shown is the one that is named
    if (m.type === 'image') {
      Object.assign(pics, {before: await decode(buffers[0]), after: null, over: null}); old(true); draw(); say(m.text || '');
      if (m.name && ![...image.options].some(o => o.value === String(m.index))) image.append(make('option', {value: m.index}, m.name));
      image.value = at = m.index; turn(false);
    }
    if (m.type === 'guide') { addGuide(m.guide, guideBox.childElementCount); pick(guideBox.childElementCount - 1); say(m.text || ''); }
    if (m.type === 'picture') {
      const [after, over = null] = await Promise.all(buffers.map(decode)); Object.assign(pics, {after, over}); old(m.quick);     // a map lies over its own picture only
      if (m.numbers) numbers.replaceChildren(...m.numbers.flatMap(([k, v]) => [make('dt', {}, k), make('dd', {}, v)]));
      if (m.key) key.replaceChildren(...m.key.map(([c, t]) => make('span', {}, make('i', {style: `background: ${c}`}), t)));
      Object.assign(root.dataset, {ms: m.ms, network: m.network_ms, quick: m.quick, strength: m.strength}); draw();
      if (!setup.live) tell(m.strength);                                   // the nearest that there is
    }
    if (m.type === 'saved' && saving) { saving = false; download(buffers[0], m.name, 'image/png'); download(buffers[1], m.name.replace(/\.png$/, '.json'), 'application/json'); say(`Saved ${m.name}, with its settings beside it.`); }
  }, (...a) => say(...a));
  const tell = s => { shown.textContent = percent(s); dial.setAttribute('aria-valuetext', percent(s)); };
  const turn = quick => { if (setup.live) tell(state.strength); ask({type: 'render', ...state, quick}); };
  const pick = k => { state.guide = k; const i = guideBox.children[k].querySelector('input'); i.checked = true; turn(false); };
  dial.addEventListener('input', () => { state.strength = +dial.value; turn(true); });
  dial.addEventListener('change', () => { state.strength = +dial.value; turn(false); });
  split.addEventListener('input', () => { state.split = split.value/100; draw(); });
  const move = e => { const r = canvas.getBoundingClientRect(); state.split = Math.min(1, Math.max(0, (e.clientX - r.left)/r.width)); split.value = 100*state.split; draw(); };
  screen.addEventListener('pointerdown', e => { screen.setPointerCapture(e.pointerId); move(e); });
  screen.addEventListener('pointermove', e => { if (e.buttons) move(e); });
  const image = make('select', {onchange: () => ask({type: 'image', index: +image.value})}, ...setup.images.map((n, k) => make('option', {value: k}, n)));
  const overlay = make('select', {onchange: () => { state.overlay = overlay.value; pics.over = null; turn(false); }}, ...setup.overlays.map(([v, t]) => make('option', {value: v}, t)));
  const guideName = name('guide'), guideBox = make('div', {class: 'guides'});
  const addGuide = (g, k) => guideBox.append(make('label', {}, make('input', {type: 'radio', name: guideName, value: k, checked: k === 0, onchange: () => { state.guide = k; turn(false); }}),
    make('span', {class: 'face', 'aria-hidden': 'true', style: g.face ? `background-image: url(${g.face})` : null}, g.face ? '' : '◎'), g.label));
  setup.guides.forEach(addGuide);
  const file = what => make('input', {type: 'file', accept: setup.accept, onchange: e => { if (e.target.files[0]) upload(e.target.files[0], setup, say, ask, what); e.target.value = ''; }});
  const controls = make('div', {class: 'controls'}, labelled('Image', image), setup.live ? labelled(`Your own image (at most ${setup.max_mb} MB)`, file('image')) : null,
    make('div', {}, make('div', {class: 'beside'}, make('label', {for: dial.id = name('strength')}, 'Strength'), shown), dial),
    make('fieldset', {}, make('legend', {}, 'Guide: whose look to take'), guideBox, setup.live ? labelled('Your own good image', file('guide')) : null),
    labelled('Over the picture', overlay), key, numbers,
    setup.live ? make('div', {class: 'beside'}, make('button', {type: 'button', onclick: () => { say('Enhancing at full size …'); saving = true; ask({type: 'save', ...state}); }}, 'Save at full size')) : null);
  root.append(make('div', {class: 'columns'}, make('div', {class: 'stage'}, screen, labelled('Split', split)), controls));
  const say = words(controls); root.append(make('p', {class: 'small'}, setup.note)); say(setup.live ? 'Loading …' : '');
  ask({type: 'image', index: 0});
}

// pictures side by side that move together
function compare(model, root) {
  const setup = model.get('setup'), look = {x: .5, y: .5, zoom: 1}, tiles = []; let at = 0;
  const draw = () => tiles.forEach(({canvas, pic}) => {
    if (!pic) return; size(canvas, pic.width, pic.height); const w = pic.width/look.zoom, h = pic.height/look.zoom, g = canvas.getContext('2d');
    look.x = Math.min(1 - .5/look.zoom, Math.max(.5/look.zoom, look.x)); look.y = Math.min(1 - .5/look.zoom, Math.max(.5/look.zoom, look.y));
    g.imageSmoothingEnabled = look.zoom < 4; g.drawImage(pic, look.x*pic.width - w/2, look.y*pic.height - h/2, w, h, 0, 0, pic.width, pic.height);
    root.dataset.zoom = look.zoom.toFixed(2); times.textContent = `${+look.zoom.toFixed(1)} ×`; range.setAttribute('aria-valuetext', times.textContent);      // its own value is a logarithm
  });
  const zoom = f => { look.zoom = Math.min(16, Math.max(1, look.zoom*f)); range.value = Math.log2(look.zoom); draw(); };
  const pan = (dx, dy) => { look.x += dx/look.zoom; look.y += dy/look.zoom; draw(); };
  const keys = e => {
    if (e.ctrlKey || e.metaKey || e.altKey) return;                        // the browser's own zoom
    const act = {'+': () => zoom(1.25), '=': () => zoom(1.25), '-': () => zoom(.8), 0: () => zoom(0), ArrowLeft: () => pan(-.1, 0), ArrowRight: () => pan(.1, 0), ArrowUp: () => pan(0, -.1), ArrowDown: () => pan(0, .1)}[e.key];
    if (act) { e.preventDefault(); e.stopPropagation(); act(); }
  };
  const times = make('output', {class: 'small'}, '1 ×'), range = make('input', {type: 'range', min: 0, max: 4, step: .1, value: 0, 'aria-valuetext': '1 ×', oninput: () => { look.zoom = 2**range.value; draw(); }});
  const image = make('select', {onchange: () => { say('Working …'); ask({type: 'image', index: +image.value}); }}, ...setup.images.map((n, k) => make('option', {value: k}, n)));
  const box = make('div', {class: 'tiles', tabindex: 0, role: 'group', 'aria-label': 'Pictures side by side; arrow keys move, plus and minus zoom, zero shows all', onkeydown: keys});
  const ask = talk(model, async (m, buffers) => {
    if (m.type === 'error') { image.value = at; return say(m.text, true); }
    const pics = await Promise.all(buffers.map(decode));
    pics.forEach((p, k) => { tiles[k].pic = p; tiles[k].caption.textContent = m.captions[k]; tiles[k].canvas.setAttribute('aria-label', m.captions[k]); }); draw(); say(''); image.value = at = m.index;
  }, (...a) => say(...a));
  setup.methods.forEach(() => {
    const canvas = make('canvas', {role: 'img'}), caption = make('figcaption'), screen = make('div', {class: 'screen'}, canvas);
    screen.addEventListener('wheel', e => { e.preventDefault(); zoom(e.deltaY < 0 ? 1.15 : 1/1.15); }, {passive: false});
    screen.addEventListener('pointerdown', e => screen.setPointerCapture(e.pointerId));
    screen.addEventListener('pointermove', e => { if (e.buttons) pan(-e.movementX/screen.clientWidth, -e.movementY/screen.clientHeight); });
    tiles.push({canvas, caption}); box.append(make('figure', {}, screen, caption));
  });
  root.append(make('div', {class: 'beside'}, labelled('Image', image), labelled('Zoom', range), times), box); const say = words(root); root.append(make('p', {class: 'small'}, setup.note));
  say('Working …'); ask({type: 'image', index: 0});
}

// a good image, and what spoils it
function degrade(model, root) {
  const setup = model.get('setup'), state = structuredClone({on: setup.on, values: setup.values, seed: setup.seed}), canvas = make('canvas', {role: 'img', 'aria-label': 'the spoiled image'});
  const ask = talk(model, async (m, buffers) => {
    if (m.type === 'error') return say(m.text, true);
    const pic = await decode(buffers[0]); size(canvas, pic.width, pic.height); canvas.getContext('2d').drawImage(pic, 0, 0);
    root.dataset.drawn = 1 + (+root.dataset.drawn || 0); say(m.text || '');
  }, (...a) => say(...a));
  const turn = () => ask({type: 'render', ...state});
  const factors = Object.entries(setup.factors).map(([f, params]) => {
    const box = make('input', {type: 'checkbox', checked: state.on.includes(f), onchange: () => { state.on = box.checked ? [...state.on, f] : state.on.filter(o => o !== f); turn(); }}); box.id = name('factor');
    const sliders = Object.entries(params).map(([p, [low, high, step]]) => {
      const s = make('input', {type: 'range', min: low, max: high, step, value: state.values[f][p], 'aria-label': `${f}: ${p}`}), shown = make('output');
      const tell = () => { shown.textContent = `${+(+s.value).toPrecision(3)}`; s.setAttribute('aria-valuetext', shown.textContent); }; tell();
      s.addEventListener('input', () => { tell(); state.values[f][p] = +s.value; if (!box.checked) { box.checked = true; state.on = [...state.on, f]; } turn(); });
      return make('label', {class: 'small'}, make('span', {class: 'beside'}, p, shown), s);
    });
    return make('div', {class: 'factor'}, make('div', {class: 'beside'}, box, make('label', {for: box.id}, f)), make('details', {}, make('summary', {class: 'small'}, 'parameters'), ...sliders));
  });
  const seed = make('input', {type: 'number', min: 0, max: 99999, value: state.seed, onchange: () => { state.seed = Math.max(0, Math.floor(+seed.value || 0)); turn(); }});
  const controls = make('div', {class: 'controls'}, labelled('Seed of what is random in detail', seed), ...factors);
  root.append(make('div', {class: 'columns'}, make('div', {class: 'stage'}, make('div', {class: 'screen'}, canvas)), controls)); const say = words(root); turn();
}

// a training as it runs: losses over steps, and always the same validation images
function monitor(model, root) {
  const canvas = make('canvas', {role: 'img', 'aria-label': 'losses over steps', width: 900, height: 320}), key = make('div', {class: 'key'}), box = make('figure'), caption = make('figcaption', {class: 'small'});
  const picture = make('canvas', {role: 'img', 'aria-label': 'validation images: input, enhanced'}); box.append(make('div', {class: 'screen'}, picture), caption);
  const lines = {}, colours = ['#0b5cad', '#d55e00', '#009e73', '#a0408c', '#8a6d00', '#555555'];
  const draw = () => {
    const g = canvas.getContext('2d'), all = Object.values(lines).flat(); g.clearRect(0, 0, 900, 320); if (!all.length) return;
    // a logarithm above a thousandth, linear around zero, and the same below it: the expected error's loss is a logarithm itself and soon negative
    const up = v => Math.sign(v)*Math.log10(1 + 1000*Math.abs(v)), ys = all.map(p => up(p[1]));
    const x1 = Math.max(...all.map(p => p[0]), 1), lo = Math.min(...ys), hi = Math.max(...ys, lo + .1);
    const at = ([s, v]) => [60 + 830*s/x1, 296 - 280*(up(v) - lo)/(hi - lo)]; g.font = '16px sans-serif'; g.lineWidth = 1; g.textAlign = 'right'; let last = 400;
    for (const v of [-100, -10, -1, -.1, -.01, 0, .01, .1, 1, 10, 100, 1000]) {
      const y = at([0, v])[1]; if (up(v) < lo || up(v) > hi || last - y < 18) continue;
      last = y; g.fillStyle = '#444'; g.fillText(v, 54, y + 5); g.strokeStyle = '#ddd'; g.beginPath(); g.moveTo(60, y); g.lineTo(890, y); g.stroke();
    }
    g.fillStyle = '#444'; g.fillText(`step ${x1}`, 890, 316); g.textAlign = 'left'; g.fillText('loss', 2, 316);
    Object.values(lines).forEach((l, k) => {                                                        // more curves than colours: the others are dashed
      let mean = 0; const calm = l.map(([s, v], i) => [s, mean += (v - mean)/Math.min(i + 1, 8)]);   // one batch is noise: thick is what the last eight points were like
      g.strokeStyle = colours[k % 6];
      for (const [points, alpha, width] of [[l, .3, 1], [calm, 1, 2]]) {
        g.globalAlpha = alpha; g.lineWidth = width; g.setLineDash(width > 1 ? [[], [8, 4], [2, 3]][Math.floor(k/6) % 3] : []); g.beginPath();
        points.forEach((p, i) => g[i ? 'lineTo' : 'moveTo'](...at(p))); g.stroke();
      }
    });
    g.globalAlpha = 1; g.setLineDash([]);
    const mark = k => { const c = colours[k % 6], n = [0, 4, 2][Math.floor(k/6) % 3]; return n ? `repeating-linear-gradient(90deg, ${c} 0 ${n}px, #fff ${n}px ${1.5*n}px)` : c; };
    key.replaceChildren(...Object.entries(lines).map(([n, l], k) => make('span', {}, make('i', {style: `background: ${mark(k)}`}), `${n} ${l.at(-1)[1].toPrecision(3)}`)));
    root.dataset.points = all.length;
  };
  root.append(canvas, key, box); canvas.style.maxWidth = '100%'; const say = words(root);
  model.on('msg:custom', async (m, buffers) => {
    for (const [n, v] of Object.entries(m.losses || {})) (lines[n] ||= []).push([m.step, v]);
    Object.assign(lines, m.lines || {}); draw();                           // all of them, for a page that comes late
    if (buffers?.length) { const p = await decode(buffers[0]); size(picture, p.width, p.height); picture.getContext('2d').drawImage(p, 0, 0); caption.textContent = m.caption; }
    if (m.text) say(m.text);
  });
  model.send({type: 'hello'}, undefined, []);
}

const VIEWS = {strength, compare, degrade, monitor};

function render({model, el}) {
  const root = make('section', {class: 'hqgnet', 'aria-label': `hqgnet ${model.get('setup').view} demo`}); el.append(root);
  VIEWS[model.get('setup').view](model, root);
}

// without a kernel: `data` has the setup and pictures for some strengths; the nearest is shown
function still(data) {
  let hear = () => {};
  const fetched = {}, get = async url => fetched[url] ||= await fetch(url).then(r => r.blob());
  let now = 0;
  const answer = async m => {
    if (m.type === 'image') { now = m.index; const im = data.images[now]; return [{type: 'image', index: now, text: ''}, [await get(im.before)]]; }
    const im = data.images[now], frames = im.frames[m.guide], k = frames.reduce((best, f, i) => Math.abs(f.strength - m.strength) < Math.abs(frames[best].strength - m.strength) ? i : best, 0), f = frames[k];
    const over = f.overlays[m.overlay];
    return [{type: 'picture', quick: false, strength: f.strength, numbers: f.numbers, key: over ? over.key : []}, [await get(f.picture), ...(over ? [await get(over.picture)] : [])]];
  };
  return {get: () => data.setup, on: (what, f) => { hear = f; }, send: m => answer(m).catch(e => [{type: 'error', text: `This picture is missing (${e.name}).`}, []]).then(a => hear(...a))};
}

const mount = (el, data) => render({model: still(data), el});

export default {render};
