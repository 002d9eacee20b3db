// Who asks whom, as bands between two columns: left who asks, right who is asked, each as thick as what passes. Drawn in the width
// that there is; each band is a link to its exchanges.

import { h, svg } from './dom.js';
import { number, t } from './text.js';

/** Between two bars; where there is little room, the number stands on a line of its own. */
const gap = (width) => (width < 560 ? 50 : 34);
const BAR = 14;
const LEAST = 2;
const HUES = 6;

const sizes = new ResizeObserver((changed) => changed.forEach(({ target }) => target.draw?.()));

/** links: { from, to, count, refused, href }; name(member) is what it is called. */
export function flow({ links, name, told, bodyHref }) {
  const box = h('div', { class: 'flow' });
  let width = 0;
  box.draw = () => {
    const wide = Math.floor(box.clientWidth);
    if (wide < 100 || wide === width) return;
    width = wide;
    box.replaceChildren(picture(links, name, told, wide, bodyHref));
  };
  sizes.observe(box);
  return box;
}

function column(links, key, scale, width) {
  const GAP = gap(width);
  const sums = new Map();
  for (const link of links) sums.set(link[key], (sums.get(link[key]) ?? 0) + link.count);
  const nodes = [...sums]
    .map(([id, count]) => ({ id, count, height: Math.max(LEAST * 2, count * scale) }))
    .sort((a, b) => b.count - a.count);
  let y = GAP;
  for (const node of nodes) {
    Object.assign(node, { y, taken: 0 });
    y += node.height + GAP;
  }
  return { nodes: new Map(nodes.map((node) => [node.id, node])), height: y - GAP + 10 };
}

function picture(links, name, told, width, bodyHref) {
  const sum = links.reduce((sum, { count }) => sum + count, 0);
  const most = Math.max(new Set(links.map(({ from }) => from)).size, new Set(links.map(({ to }) => to)).size);
  const scale = Math.min(420, 90 + 60 * most) / Math.max(sum, 1);
  const [left, right] = [column(links, 'from', scale, width), column(links, 'to', scale, width)];
  const height = Math.max(left.height, right.height);
  const hues = new Map([...left.nodes.keys()].map((id, index) => [id, index % HUES]));
  // Bands leave and arrive in the order of the other column, so that they cross as little as they can.
  const place = (side, id) => side.nodes.get(id).y;
  const leaving = [...links].sort((a, b) => place(right, a.to) - place(right, b.to));
  const arriving = [...links].sort((a, b) => place(left, a.from) - place(left, b.from));
  const ends = new Map(links.map((link) => [link, { thick: Math.max(LEAST, link.count * scale) }]));
  for (const [sorted, side, key, end] of [
    [leaving, left, 'from', 'y1'],
    [arriving, right, 'to', 'y2'],
  ]) {
    for (const link of sorted) {
      const node = side.nodes.get(link[key]);
      ends.get(link)[end] = node.y + node.taken;
      node.taken += ends.get(link).thick;
    }
  }
  const band = (link) => {
    const { thick, y1, y2 } = ends.get(link);
    const [x1, x2] = [BAR, width - BAR];
    const half = (x1 + x2) / 2;
    const path = `M${x1},${y1}C${half},${y1} ${half},${y2} ${x2},${y2}V${y2 + thick}C${half},${y2 + thick} ${half},${y1 + thick} ${x1},${y1 + thick}Z`;
    const label = t('flow-band', { from: name(link.from), to: name(link.to), n: link.count, refused: link.refused });
    return svg(
      'a',
      { href: link.href, class: `band hue${hues.get(link.from)}`, 'aria-label': label },
      svg('path', { d: path }),
      svg('title', null, label),
    );
  };
  const node =
    (side, x, anchor) =>
    ({ id, count, y, height }) =>
      svg(
        'g',
        { class: side === left ? `end hue${hues.get(id)}` : 'end' },
        svg('rect', { x: side === left ? 0 : width - BAR, y, width: BAR, height, rx: 3 }),
        svg(
          'a',
          { href: bodyHref(id) },
          svg(
            'text',
            { x, y: y - 9 - (width < 560 ? 17 : 0), 'text-anchor': anchor },
            fit(name(id), width, number(count), x),
          ),
        ),
      );
  return svg(
    'svg',
    { width, height, viewBox: `0 0 ${width} ${height}`, role: 'group', 'aria-label': told },
    links.map(band),
    [...left.nodes.values()].map(node(left, 0, 'start')),
    [...right.nodes.values()].map(node(right, width, 'end')),
  );
}

const measure = document.createElement('canvas').getContext('2d');

/** A name cut to the room that it has, and a number behind or below it. */
function fit(name, width, count, x) {
  const narrow = width < 560;
  measure.font = `600 14px ${getComputedStyle(document.body).fontFamily}`;
  const left = width / 2 - 12 - (narrow ? 0 : measure.measureText(count).width + 8);
  let cut = name;
  while (cut.length > 3 && measure.measureText(`${cut}…`).width > left) cut = cut.slice(0, -1);
  cut = cut === name ? name : `${cut.trimEnd()}…`;
  return [
    svg('tspan', { class: 'name' }, cut),
    svg('tspan', { class: 'count', ...(narrow ? { x, dy: 17 } : { dx: 6 }) }, count),
  ];
}
