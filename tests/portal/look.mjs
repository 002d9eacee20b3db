// What a reader sees: pages, languages, links, search, keyboard.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { join } from 'node:path';

import { axe, open, settled, show } from './browser.mjs';

const PAGES = [
  '#/',
  '#/?period=all',
  '#/exchanges',
  '#/exchanges?outcome=REFUSED',
  '#/grants',
  '#/grants?show=past',
  '#/bodies',
  '#/body/KG/GOV/70000001',
  '#/my-data',
  '#/open-data',
  '#/nowhere',
];
const HEADINGS = {
  ky: 'Мамлекеттик органдар маалыматты кантип алмашат',
  ru: 'Как госорганы обмениваются данными',
  en: 'How state bodies exchange data',
};

const rowsOf = (page) => page.locator('table.list tbody tr');
const firstExchange = async (page) =>
  page.locator('table.list tbody tr a[href^="#/exchange/"]').first().getAttribute('href');

export async function everyPageInThreeLanguages({ browser, portal }) {
  for (const lang of ['ky', 'ru', 'en']) {
    const { page, context, faults } = await open(browser, portal, { locale: lang });
    await show(page, portal);
    assert.equal(await page.locator('h1').textContent(), HEADINGS[lang], 'the browser chooses the language');
    await show(page, portal, '#/exchanges');
    for (const hash of [...PAGES, await firstExchange(page)]) {
      await show(page, portal, hash);
      assert.equal(await page.getAttribute('html', 'lang'), lang);
      assert.equal(await page.locator('h1').count(), 1, hash);
      assert.equal(
        await page.locator('main .fault').count(),
        0,
        `${hash}: ${await page.locator('main .fault').allTextContents()}`,
      );
      const text = await page.locator('body').innerText();
      assert(text.length > 500 || hash === '#/nowhere', `${hash}: ${text}`);
      assert(
        !/undefined|\[object|NaN|Invalid Date|\{ ?\$/.test(text),
        `${hash} in ${lang}: ${text.match(/.{0,40}(undefined|\[object|NaN|Invalid Date|\{ ?\$).{0,40}/)?.[0]}`,
      );
      if (lang !== 'en') assert(!/\b(Exchanges|Loading|Refused|Answered)\b/.test(text), `${hash}: English in ${lang}`);
    }
    assert.deepEqual(faults, []);
    await context.close();
  }
}

export async function languageIsSwitchedAndKept({ browser, portal }) {
  const { page, context, faults } = await open(browser, portal);
  await show(page, portal, '#/grants');
  await page.getByRole('button', { name: 'Кыргызча' }).click();
  await page.waitForSelector('html[lang="ky"]');
  await settled(page);
  assert.match(page.url(), /lang=ky/, 'the address says it');
  assert.equal(await page.locator('h1').textContent(), 'Ким кимден сурай алат');
  await show(page, portal, '#/');
  assert.equal(await page.getAttribute('html', 'lang'), 'ky', 'it stays');
  assert.match(await page.locator('.verdict').innerText(), /мурда/);
  assert.deepEqual(faults, []);
  await context.close();
}

export async function nothingSeriousForAxe({ browser, AxeBuilder, portal }) {
  const found = [];
  for (const [colorScheme, viewport] of [
    ['light', { width: 1200, height: 900 }],
    ['dark', { width: 390, height: 844 }],
  ]) {
    const { page, context, faults } = await open(browser, portal, { colorScheme, viewport });
    await show(page, portal, '#/exchanges');
    const exchange = await firstExchange(page);
    for (const hash of [
      '#/',
      '#/exchanges',
      '#/grants',
      '#/bodies',
      '#/body/KG/GOV/70000001',
      '#/my-data',
      '#/open-data',
      exchange,
    ]) {
      await show(page, portal, hash);
      if (hash === exchange) {
        await page.getByRole('button', { name: 'Verify' }).click();
        await page.waitForSelector('[data-verified]');
      }
      for (const grave of await axe(
        AxeBuilder,
        page,
        colorScheme === 'dark' ? ['color-contrast', 'scrollable-region-focusable', 'target-size'] : null,
      ))
        found.push(`${hash} ${colorScheme}: ${grave}`);
    }
    assert.deepEqual(faults, []);
    await context.close();
  }
  assert.deepEqual(found, []);
}

export async function nothingIsWiderThanAPhone({ browser, portal }) {
  const { page, context } = await open(browser, portal, { viewport: { width: 360, height: 740 }, locale: 'ru' });
  await show(page, portal, '#/exchanges');
  for (const hash of [...PAGES, await firstExchange(page)]) {
    await show(page, portal, hash);
    const [inside, window] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert(inside <= window, `${hash}: ${inside} wide`);
  }
  await context.close();
}

/** All exchanges of one outcome, by a reader of our own that knows nothing of the portal's. */
async function inTheLogs(published, outcome) {
  const ids = new Set();
  for (const member of (await readdir(published)).filter((name) => /^\d+$/.test(name))) {
    const size = Number((await readFile(join(published, member, 'checkpoint'), 'utf8')).split('\n')[1]);
    for (let number = 0; number * 256 < size; number += 1) {
      const width = Math.min(256, size - number * 256);
      const bytes = await readFile(
        join(published, member, `tile/entries/${String(number).padStart(3, '0')}${width < 256 ? `.p/${width}` : ''}`),
      );
      for (let at = 0; at < bytes.length;) {
        const length = bytes.readUInt16BE(at);
        const entry = bytes.subarray(at + 2, at + 2 + length);
        at += 2 + length;
        // Field 2, the id, stands in the beginning; field 11 is the outcome: tag 58.
        const id = entry.indexOf(Buffer.from([0x12, 16]));
        let place = 0;
        let found = 0;
        while (place < entry.length) {
          const key = entry[place] & 127;
          const more = entry[place] > 127;
          const number = more ? (entry[place + 1] << 4) | (key >> 3) : key >> 3;
          place += more ? 2 : 1;
          let value = 0;
          for (let shift = 1; ; shift *= 128) {
            const byte = entry[place++];
            value += (byte & 127) * shift;
            if (byte < 128) break;
          }
          if ((key & 7) === 2) place += value;
          else if (number === 11) found = value;
        }
        if (found === outcome) ids.add(entry.subarray(id + 2, id + 18).toString('hex'));
      }
    }
  }
  return ids;
}

export async function searchFindsWhatTheLogsHave({ browser, portal, published }) {
  const wanted = await inTheLogs(published, 3);
  assert(wanted.size > 10);
  const { page, context, faults } = await open(browser, portal);
  await show(page, portal, '#/exchanges');
  await page.getByLabel('Outcome').selectOption('REFUSED');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.waitForURL(/outcome=REFUSED/);
  const found = new Set();
  for (let pages = 0; pages < 40; pages += 1) {
    await settled(page);
    for (const badge of await page.locator('table.list tbody .badge').allTextContents()) assert.equal(badge, 'Refused');
    for (const link of await page
      .locator('table.list tbody tr a[href^="#/exchange/"]')
      .evaluateAll((all) => all.map((a) => a.getAttribute('href')))) {
      found.add(link.slice(11, 47).replaceAll('-', ''));
    }
    const older = page.getByRole('link', { name: /^(Older|Search further back)$/ });
    if ((await older.count()) === 0) break;
    const hash = await older.getAttribute('href');
    await older.click();
    await page.waitForURL((url) => url.hash === hash);
  }
  assert.deepEqual([...found].sort(), [...wanted].sort());
  assert.deepEqual(faults, []);
  await context.close();
  return `${found.size} refused`;
}

export async function aStateIsALink({ browser, portal }) {
  const one = await open(browser, portal);
  await show(one.page, portal, '#/exchanges');
  await one.page.getByLabel('Who asks').selectOption({ index: 2 });
  await one.page.getByLabel('Outcome').selectOption('OK');
  await one.page.getByRole('button', { name: 'Search' }).click();
  await one.page.waitForURL(/consumer=/);
  await settled(one.page);
  await one.page.getByRole('link', { name: 'Older' }).click();
  await one.page.waitForURL(/before=/);
  await settled(one.page);
  const two = await open(browser, portal);
  await two.page.goto(one.page.url());
  await settled(two.page);
  assert.deepEqual(await rowsOf(two.page).allInnerTexts(), await rowsOf(one.page).allInnerTexts());
  assert.equal(await rowsOf(two.page).count(), 25);
  // Back is the state before.
  await one.page.goBack();
  await settled(one.page);
  assert(!one.page.url().includes('before='));
  // What is on screen as CSV.
  const [download] = await Promise.all([
    two.page.waitForEvent('download'),
    two.page.getByRole('button', { name: 'Save as CSV' }).click(),
  ]);
  const csv = await readFile(await download.path(), 'utf8');
  assert.equal(csv.trim().split('\r\n').length, 26);
  assert.match(csv, /^\ufefftime,exchange_id,consumer,provider,/);
  assert.deepEqual([...one.faults, ...two.faults], []);
  await one.context.close();
  await two.context.close();
}

export async function byKeyboardAlone({ browser, portal }) {
  const { page, context, faults } = await open(browser, portal);
  await show(page, portal);
  const focus = () => page.evaluate(() => document.activeElement?.innerText?.trim() ?? '');
  const tabTo = async (name, most = 80) => {
    for (let steps = 0; steps < most; steps += 1) {
      await page.keyboard.press('Tab');
      if ((await focus()).startsWith(name)) return;
    }
    assert.fail(`${name} is not reached by Tab`);
  };
  await page.keyboard.press('Tab');
  assert.equal(await focus(), 'Skip to the content', 'the first stop');
  await page.keyboard.press('Enter');
  assert.equal(await page.evaluate(() => document.activeElement.id), 'main');
  await tabTo('30 days');
  await page.keyboard.press('Shift+Tab');
  await show(page, portal);
  await tabTo('Exchanges');
  await page.keyboard.press('Enter');
  await page.waitForURL(/#\/exchanges/);
  await settled(page);
  assert.equal(await focus(), 'Exchanges', 'the new page begins at its heading');
  await page.waitForSelector('table.list tbody tr');
  const first = await page.locator('table.list tbody tr a').first().innerText();
  await tabTo(first);
  await page.keyboard.press('Enter');
  await page.waitForURL(/#\/exchange\//);
  await settled(page);
  await tabTo('Verify');
  const ring = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(ring, 'none', 'where the focus is can be seen');
  await page.keyboard.press('Enter');
  await page.waitForSelector('[data-verified="good"]');
  assert.match(await page.locator('[aria-live="polite"][role="status"]').first().textContent(), /checks hold/);
  assert.deepEqual(faults, []);
  await context.close();
}

export async function theFrameOfAPage({ browser, portal }) {
  const { page, context } = await open(browser, portal);
  await show(page, portal);
  for (const role of ['banner', 'main', 'contentinfo']) assert.equal(await page.getByRole(role).count(), 1, role);
  assert((await page.getByRole('navigation').count()) >= 1);
  const policy = await page.getAttribute('meta[http-equiv="Content-Security-Policy"]', 'content');
  assert.match(
    policy,
    /^default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'$/,
  );
  const ran = await page.evaluate(() => {
    const script = document.createElement('script');
    script.textContent = 'window.ran = true';
    document.head.append(script);
    return window.ran === true;
  });
  assert.equal(ran, false, 'no script within the page runs');
  const reached = await page.evaluate(() =>
    fetch('http://127.0.0.1:9/x', { mode: 'no-cors' }).then(
      () => true,
      () => false,
    ),
  );
  assert.equal(reached, false, 'nobody else is asked');
  await context.close();
}
