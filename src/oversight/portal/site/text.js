// Words, numbers and dates in Kyrgyz, Russian and English. Browsers know Kyrgyz badly or not at all, so numbers and dates are
// written here, the same everywhere. Times of day are Bishkek's (UTC+6, no summer time); days are UTC days, as the open data has them.

import { FluentBundle, FluentNumber, FluentResource } from './vendor/fluent/index.js';

export const LANGUAGES = { ky: 'Кыргызча', ru: 'Русский', en: 'English' };
const BISHKEK_MS = 6 * 3600_000;
const NBSP = '\u00a0';

const MONTHS = {
  ky: [
    'январы',
    'февралы',
    'марты',
    'апрели',
    'майы',
    'июну',
    'июлу',
    'августу',
    'сентябры',
    'октябры',
    'ноябры',
    'декабры',
  ],
  ru: [
    'января',
    'февраля',
    'марта',
    'апреля',
    'мая',
    'июня',
    'июля',
    'августа',
    'сентября',
    'октября',
    'ноября',
    'декабря',
  ],
  en: [
    'January',
    'February',
    'March',
    'April',
    'May',
    'June',
    'July',
    'August',
    'September',
    'October',
    'November',
    'December',
  ],
};
const SHORT_MONTHS = {
  ky: ['янв.', 'фев.', 'мар.', 'апр.', 'май', 'июн.', 'июл.', 'авг.', 'сен.', 'окт.', 'ноя.', 'дек.'],
  ru: ['янв.', 'февр.', 'мар.', 'апр.', 'мая', 'июн.', 'июл.', 'авг.', 'сент.', 'окт.', 'нояб.', 'дек.'],
  en: ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'],
};

let bundle = null;
let language = 'en';

/** The language in use: ky, ru or en. */
export const lang = () => language;

/** What a reader wants: as the address says, as chosen before, as the browser says. */
export function preferred(asked) {
  let stored = null;
  try {
    stored = localStorage.getItem('kopuro-lang');
  } catch {
    /* a browser may forbid it */
  }
  const wanted = [asked, stored, ...(navigator.languages ?? [])];
  return wanted.map((code) => code?.toLowerCase().split('-')[0]).find((code) => code in LANGUAGES) ?? 'ky';
}

export async function use(code, remember) {
  const answer = await fetch(`text/${code}.ftl`);
  if (!answer.ok) throw new Error(`text/${code}.ftl: ${answer.status}`);
  const next = new FluentBundle(code, { useIsolating: false });
  const errors = next.addResource(new FluentResource(await answer.text()));
  errors.forEach((error) => console.error(error));
  [bundle, language] = [next, code];
  document.documentElement.lang = code;
  if (remember) {
    try {
      localStorage.setItem('kopuro-lang', code);
    } catch {
      /* it is in the address too */
    }
  }
}

/** A number in a text: written our way, and still a number to Fluent's plural rules. */
class Count extends FluentNumber {
  toString() {
    return number(this.value);
  }
}

/** A message in the language in use. */
export function t(id, args = {}) {
  const message = bundle?.getMessage(id);
  if (!message?.value) {
    console.error(`no text ${id} in ${language}`);
    return id;
  }
  const given = Object.entries(args).map(([name, value]) => [
    name,
    typeof value === 'number' ? new Count(value) : String(value),
  ]);
  const errors = [];
  const text = bundle.formatPattern(message.value, Object.fromEntries(given), errors);
  errors.forEach((error) => console.error(id, error));
  return text;
}

/** A message where there is one, else what it would be about. */
export const named = (prefix, code) =>
  bundle?.hasMessage(`${prefix}-${code}`) ? t(`${prefix}-${code}`) : String(code);

/** 1 234 567,5 in Kyrgyz and Russian, 1,234,567.5 in English. */
export function number(value, digits = 0) {
  const [whole, fraction] = Math.abs(value).toFixed(digits).split('.');
  const grouped = whole.replace(/\B(?=(\d{3})+$)/g, language === 'en' ? ',' : NBSP);
  const sign = value < 0 ? '−' : '';
  return sign + grouped + (fraction ? (language === 'en' ? '.' : ',') + fraction : '');
}

export function percent(part, whole) {
  if (!whole) return '–';
  const share = (100 * part) / whole;
  const text = number(share, share > 0 && share < 10 ? 1 : 0);
  return language === 'en' ? `${text}%` : `${text}${NBSP}%`;
}

export function bytes(count) {
  if (count < 1000) return `${number(count)}${NBSP}B`;
  if (count < 1_000_000) return `${number(count / 1000, 1)}${NBSP}kB`;
  return `${number(count / 1_000_000, 1)}${NBSP}MB`;
}

function dateOf(date) {
  const [year, month, day] = [date.getUTCFullYear(), date.getUTCMonth(), date.getUTCDate()];
  if (language === 'ky') return `${year}-жылдын ${day}-${MONTHS.ky[month]}`;
  if (language === 'ru') return `${day}${NBSP}${MONTHS.ru[month]} ${year}${NBSP}г.`;
  return `${day}${NBSP}${MONTHS.en[month]} ${year}`;
}

const two = (value) => String(value).padStart(2, '0');

/** A moment, in Bishkek: with seconds where asked. */
export function moment(unixMs, seconds = false) {
  if (!(unixMs > 0)) return '–';
  const date = new Date(unixMs + BISHKEK_MS);
  const time = `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}${seconds ? `:${two(date.getUTCSeconds())}` : ''}`;
  return `${dateOf(date)}, ${time}`;
}

/** A moment in a column. */
export function shortMoment(unixMs) {
  if (!(unixMs > 0)) return '–';
  const date = new Date(unixMs + BISHKEK_MS);
  return `${shortDay(date)} ${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())}`;
}

function shortDay(date) {
  const [month, day] = [date.getUTCMonth(), date.getUTCDate()];
  if (language === 'ky') return `${day}-${SHORT_MONTHS.ky[month]}`;
  return `${day}${NBSP}${SHORT_MONTHS[language][month]}`;
}

/** A UTC day or month as the summaries write them: 2026-11-25, 2026-11. */
export function day(name, short = false) {
  const date = new Date(`${name.length === 7 ? `${name}-01` : name}T00:00:00Z`);
  if (name.length === 7) {
    const month = SHORT_MONTHS[language][date.getUTCMonth()];
    return language === 'ky' ? `${date.getUTCFullYear()}-ж. ${month}` : `${month} ${date.getUTCFullYear()}`;
  }
  return short ? shortDay(date) : dateOf(date);
}

/** How long ago: in the largest unit that says enough. */
export function age(ms) {
  const seconds = Math.max(0, Math.round(ms / 1000));
  if (seconds < 60) return t('age-seconds', { n: seconds });
  if (seconds < 3600) return t('age-minutes', { n: Math.floor(seconds / 60) });
  if (seconds < 172_800) return t('age-hours', { n: Math.floor(seconds / 3600) });
  return t('age-days', { n: Math.floor(seconds / 86_400) });
}
