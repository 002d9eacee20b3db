// Charts of days or months, by uPlot (vendor/uplot). Colours are those of the page, light or dark; the canvas tells a screen reader
// what it shows in one sentence, and the table behind it tells the rest (dom.js, figure).

import { h } from './dom.js';
import { day, number, t } from './text.js';

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Which elements are drawn, to draw them again when there is another width or colour scheme. */
const drawn = new Map();
const sizes = new ResizeObserver((changed) => changed.forEach(({ target }) => drawn.get(target)?.()));
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => drawn.forEach((draw) => draw(true)));

/**
 * Bars for each span, and a darker part of each: spans are { name, count, part }, marks are names of spans.
 */
export function bars({ spans, label, partLabel, marks = [], told }) {
  const readout = h('p', { class: 'readout', 'aria-hidden': 'true' }, '\u00a0');
  const box = h('div', { class: 'chart', role: 'img', 'aria-label': told });
  let plot = null;
  let width = 0;
  const draw = (again = false) => {
    const wide = Math.floor(box.clientWidth);
    if (width > 0 && !box.isConnected) {
      // It was on a page that is gone.
      sizes.unobserve(box);
      drawn.delete(box);
      return;
    }
    if (wide < 50 || (wide === width && !again)) return;
    width = wide;
    plot?.destroy();
    plot = new uPlot(options(spans, { label, partLabel, marks, width: wide, readout }), data(spans), box);
  };
  drawn.set(box, draw);
  sizes.observe(box);
  const legend = h(
    'p',
    { class: 'legend', 'aria-hidden': 'true' },
    h('span', { class: 'key count' }, label),
    partLabel ? h('span', { class: 'key part' }, partLabel) : null,
    marks.length ? h('span', { class: 'key mark' }, t('unusual-mark')) : null,
  );
  return h('div', { class: 'plot' }, legend, box, readout);
}

const data = (spans) => [
  spans.map((_, index) => index),
  spans.map(({ count }) => count),
  spans.map(({ part }) => part ?? null),
];

function options(spans, { label, partLabel, marks, width, readout }) {
  const ink = colour('--ink-soft');
  const lines = { stroke: colour('--line'), width: 1 };
  const font = `13px ${getComputedStyle(document.body).fontFamily}`;
  const bar = uPlot.paths.bars({ size: [0.72, 44, 1] });
  const show = (self) => {
    const span = spans[self.cursor.idx];
    const part = partLabel && span ? ` · ${partLabel}: ${number(span.part)}` : '';
    readout.textContent = span ? `${day(span.name)} — ${label}: ${number(span.count)}${part}` : '\u00a0';
  };
  const most = Math.max(...spans.map(({ count }) => count), 1);
  return {
    width,
    height: width < 500 ? 190 : 220,
    legend: { show: false },
    cursor: { y: false, drag: { x: false, y: false }, points: { show: false } },
    scales: { x: { time: false, range: () => [-0.7, spans.length - 0.3] }, y: { range: () => [0, most * 1.08] } },
    axes: [
      {
        stroke: ink,
        font,
        grid: { show: false },
        ticks: { show: false },
        size: 30,
        splits: () => ticks(spans.length, width),
        values: (_, indices) => indices.map((index) => (spans[index] ? day(spans[index].name, true) : '')),
      },
      {
        stroke: ink,
        font,
        grid: lines,
        ticks: { show: false },
        size: (_, values) => 14 + 8 * Math.max(3, ...(values ?? []).map((value) => value.length)),
        incrs: [
          1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 2e4, 5e4, 1e5, 2e5, 5e5, 1e6, 2e6, 5e6, 1e7, 1e8, 1e9,
        ],
        values: (_, counts) => counts.map((count) => number(count)),
      },
    ],
    series: [
      {},
      { paths: bar, points: { show: false }, fill: colour('--bar'), stroke: colour('--bar'), width: 0 },
      {
        paths: bar,
        points: { show: false },
        fill: colour('--bad'),
        stroke: colour('--bad'),
        width: 0,
        show: Boolean(partLabel),
      },
    ],
    hooks: { setCursor: [show], draw: [(self) => draw(self, spans, marks)] },
  };
}

/** So many labels as there is room for, the last one always. */
function ticks(count, width) {
  const step = Math.max(1, Math.ceil((count * 78) / Math.max(width - 60, 78)));
  const found = [];
  for (let at = count - 1; at >= 0; at -= step) found.unshift(at);
  return found;
}

/** A mark over each unusual span. */
function draw(plot, spans, marks) {
  const { ctx } = plot;
  ctx.save();
  ctx.fillStyle = colour('--warn');
  spans.forEach(({ name, count }, index) => {
    if (!marks.includes(name)) return;
    const [x, y] = [plot.valToPos(index, 'x', true), plot.valToPos(count, 'y', true)];
    const size = 5 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, y - size * 0.6);
    ctx.lineTo(x - size, y - size * 2.2);
    ctx.lineTo(x + size, y - size * 2.2);
    ctx.fill();
  });
  ctx.restore();
}
