// The portal: reads portal.json, chooses the language, and shows the page that the address names. Every state of every page is in
// the address, behind #, so that any web server will do and every state can be shared.

import { announce, busy, fault, h, liveRegion } from './dom.js';
import { href, parseHash } from './links.js';
import { Sources } from './source.js';
import { LANGUAGES, lang, preferred, t, use } from './text.js';
import { overview } from './pages/overview.js';
import { exchanges } from './pages/exchanges.js';
import { exchangePage } from './pages/exchange.js';
import { grants } from './pages/grants.js';
import { bodies, body } from './pages/bodies.js';
import { myData } from './pages/mydata.js';
import { openData } from './pages/opendata.js';

const PAGES = {
  '': overview,
  exchanges,
  exchange: exchangePage,
  grants,
  bodies,
  body,
  'my-data': myData,
  'open-data': openData,
};
const MENU = ['', 'exchanges', 'grants', 'bodies', 'my-data', 'open-data'];
/** Under which entry of the menu a page stands. */
const UNDER = { exchange: 'exchanges', body: 'bodies' };

let sources = null;
let turn = 0;

function header(page) {
  const current = UNDER[page] ?? page;
  const entry = (name) =>
    h(
      'li',
      null,
      h(
        'a',
        { href: href(name), 'aria-current': name === current ? 'page' : undefined },
        t(`nav-${name || 'overview'}`),
      ),
    );
  const choose = (code) => () => {
    const { page, rest, params } = parseHash();
    location.hash = href(page, { ...params, lang: code }, rest).slice(1);
  };
  const languages = Object.entries(LANGUAGES).map(([code, name]) =>
    h('button', { type: 'button', lang: code, 'aria-pressed': String(code === lang()), onclick: choose(code) }, name),
  );
  return h(
    'header',
    { class: 'top' },
    h(
      'div',
      { class: 'wide bar' },
      h(
        'a',
        { class: 'brand', href: href('') },
        mark(),
        h('span', null, h('b', null, 'Kopuro'), h('span', { class: 'tag' }, t('tagline'))),
      ),
      h('div', { class: 'languages', role: 'group', 'aria-label': t('language') }, languages),
    ),
    h('nav', { class: 'wide menu', 'aria-label': t('menu') }, h('ul', null, MENU.map(entry))),
  );
}

/** A bridge. */
function mark() {
  const image = h('img', { src: 'icon.svg', alt: '', width: '36', height: '36' });
  return image;
}

function footer() {
  return h(
    'footer',
    { class: 'foot' },
    h('div', { class: 'wide' }, h('p', null, t('foot-what')), h('p', null, t('foot-trust'))),
  );
}

async function show() {
  const mine = (turn += 1);
  const { page, rest, params } = parseHash();
  const code = params.lang in LANGUAGES ? params.lang : preferred();
  if (code !== lang() || !document.querySelector('main')) await use(code, 'lang' in params);
  if (mine !== turn) return;
  const title = t(`title-${page in PAGES ? page || 'overview' : 'missing'}`);
  document.title = `${title} · Kopuro`;
  const heading = h('h1', { tabindex: '-1' }, title);
  const content = h('div', { class: 'content', 'aria-busy': 'true' }, busy());
  const main = h('main', { id: 'main', class: 'wide', tabindex: '-1' }, heading, content);
  const hadPage = document.querySelector('main') !== null;
  document.body.replaceChildren(
    h(
      'a',
      {
        class: 'skip',
        href: '#main',
        onclick: (event) => {
          event.preventDefault();
          main.focus();
        },
      },
      t('skip'),
    ),
    header(page),
    main,
    footer(),
    liveRegion(),
  );
  // On a phone the menu is wider than the screen.
  const here = document.querySelector('.menu [aria-current]');
  if (here) here.closest('ul').scrollLeft = here.offsetLeft - 60;
  if (hadPage) heading.focus();
  try {
    sources ??= await Sources.open();
    const render = PAGES[page];
    const made = render ? await render({ sources, params, rest, heading, isCurrent: () => mine === turn }) : missing();
    if (mine !== turn) return;
    content.replaceChildren(made);
    announce(t('shown', { title: heading.textContent }));
  } catch (error) {
    if (mine !== turn) return;
    sources = sources?.logs ? sources : null;
    content.replaceChildren(fault(t('fault'), String(error.message ?? error)));
  }
  content.setAttribute('aria-busy', 'false');
}

const missing = () => h('p', null, t('missing'), ' ', h('a', { href: href('') }, t('nav-overview')));

addEventListener('hashchange', show);
show();
