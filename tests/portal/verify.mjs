// What the browser finds out for itself: proofs and openings, good and tampered with.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { readFile, writeFile } from 'node:fs/promises';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

import { open, settled, show } from './browser.mjs';
import { serve } from './serve.mjs';

/** An answered exchange's address, with log and index of the entry that ends it. */
async function anExchange(page, portal) {
  await show(page, portal, '#/exchanges?outcome=OK');
  const href = await page.locator('table.list tbody tr a[href^="#/exchange/"]').nth(20).getAttribute('href');
  const [, log, index] = href.match(/at=(\d+)\.(\d+)/).map(Number);
  return { href, log, index };
}

async function verdict(page) {
  await page.getByRole('button', { name: 'Verify' }).click();
  const state = await (await page.waitForSelector('[data-verified]')).getAttribute('data-verified');
  const bad = await page.locator('.step.bad').allInnerTexts();
  return {
    state,
    bad,
    told: await page.locator('[data-verified]').innerText(),
    good: await page.locator('.step.good').count(),
  };
}

export async function whatIsRightVerifies({ browser, portal }) {
  const { page, context, faults } = await open(browser, portal);
  const { href } = await anExchange(page, portal);
  await show(page, portal, href);
  assert.equal((await page.locator('.side .entry').count()) >= 4, true, 'both sides tell it, opening and closing');
  assert.match(await page.locator('.verdict h2').first().innerText(), /Both sides tell the same/);
  const found = await verdict(page);
  assert.deepEqual([found.state, found.bad], ['good', []]);
  assert(found.good >= 2 * 3 + 4 * 3, `${found.good} steps`);
  assert.deepEqual(faults, []);
  await context.close();
  return `${found.good} steps`;
}

/** One byte of one published file, changed on its way. */
const flipped = (published, path, at) => (asked) => {
  if (asked !== path) return null;
  const bytes = Buffer.from(readFileSync(join(published, path)));
  bytes[at(bytes)] ^= 1;
  return bytes;
};

export async function oneWrongByteShowsRed({ browser, portal, published }) {
  const first = await open(browser, portal);
  const { href, log, index } = await anExchange(first.page, portal);
  await first.context.close();
  const { logs } = JSON.parse(await readFile(join(published, 'portal/portal.json'), 'utf8'));
  const folder = logs[log].url.replace(/^\.\./, '');
  const size = Number((await readFile(join(published, folder, 'checkpoint'), 'utf8')).split('\n')[1]);
  const number = Math.floor(index / 256);
  const name = (width, number) => `${String(number).padStart(3, '0')}${width < 256 ? `.p/${width}` : ''}`;
  const width = Math.min(256, size - number * 256);
  const entry = (bytes) => {
    let at = 0;
    for (let skip = index % 256; skip > 0; skip -= 1) at += 2 + bytes.readUInt16BE(at);
    return at + 2 + bytes.readUInt16BE(at) - 3;
  };
  const other = index % 256 === 0 ? 1 : 0;
  const cases = [
    ['an entry', `${folder}tile/entries/${name(width, number)}`, entry, /hash tile has another hash/],
    ['its hash', `${folder}tile/0/${name(width, number)}`, () => (index % 256) * 32 + 7, /hash tile has another hash/],
    [
      'another hash',
      `${folder}tile/0/${name(width, number)}`,
      () => other * 32 + 9,
      /does not lead to the signed root/,
    ],
    [
      'the checkpoint',
      `${folder}checkpoint`,
      (bytes) => bytes.indexOf('\n\n') - 5,
      /signature is wrong|cannot be read/,
    ],
    ['a cosignature', `${folder}checkpoint`, (bytes) => bytes.length - 20, /witness's signature is wrong/],
  ];
  for (const [what, path, at, meaning] of cases) {
    const server = await serve(published, flipped(published, path, at));
    const { page, context } = await open(browser, server.url);
    await show(page, `${server.url}/portal/`, href);
    const found = await verdict(page);
    assert.equal(found.state, 'bad', what);
    assert.match(found.bad.join('\n'), meaning, what);
    assert.match(found.told, /FAILED/, what);
    const colour = await page
      .locator('.step.bad .sign')
      .first()
      .evaluate((sign) => getComputedStyle(sign).color);
    assert.equal(colour, 'rgb(163, 32, 29)', `${what} shows red`);
    await context.close();
    server.close();
  }
}

export async function aMissingSideIsSaid({ browser, portal, published }) {
  const first = await open(browser, portal);
  const { href, log } = await anExchange(first.page, portal);
  await show(first.page, portal, href);
  await first.context.close();
  const { logs } = JSON.parse(await readFile(join(published, 'portal/portal.json'), 'utf8'));
  // The other logs' bundles are gone.
  const own = logs[log].url.replace(/^\.\./, '');
  const server = await serve(published, (path) =>
    path.includes('/tile/entries/') && !path.startsWith(own) ? Buffer.alloc(0) : null,
  );
  const { page, context } = await open(browser, server.url);
  await show(page, `${server.url}/portal/`, href);
  assert.match(await page.locator('main').innerText(), /One side's log lacks it/);
  await context.close();
  server.close();
}

export async function noLogRenamesTheOthers({ browser, portal, published }) {
  const genuine = await readFile(join(published, '70000003/directory'), 'utf8');
  const forged = genuine
    .replace('\nversion 1\n', '\nversion 99\n')
    .replaceAll(/^(member \S+) .*$/gm, '$1 "Калп" "Ложь" "False"');
  assert.notEqual(forged, genuine);
  const server = await serve(published, (path) => (path === '/70000003/directory' ? Buffer.from(forged) : null));
  const { page, context, faults } = await open(browser, server.url);
  await show(page, `${server.url}/portal/`, '#/bodies');
  const text = await page.locator('main').innerText();
  assert(!text.includes('False') && text.includes('Social Fund'), text);
  assert.deepEqual(faults, []);
  await context.close();
  server.close();
}

export async function openings({ browser, portal, kopuro, demo, work, published }) {
  const { page, context, faults } = await open(browser, portal);
  const { href, log, index } = await anExchange(page, portal);
  const { logs } = JSON.parse(await readFile(join(published, 'portal/portal.json'), 'utf8'));
  const member = logs[log].url.split('/')[1];
  const folder = { 70000001: 'registry', 70000002: 'tax', 70000003: 'social', 70000004: 'cadastre' }[member];
  const file = join(work, 'opening.json');
  execFileSync(
    kopuro,
    [
      'log',
      'open',
      '--data',
      join(demo, folder, 'data'),
      '--index',
      String(index),
      '--field',
      'address',
      '--field',
      'sizes',
      '--field',
      'request-digest',
      '--checkpoint',
      join(published, member, 'checkpoint'),
      '--out',
      file,
    ],
    { stdio: ['ignore', 'ignore', 'inherit'] },
  );
  await show(page, portal, '#/my-data');
  const check = async (content) => {
    await page.setInputFiles('#opening', {
      name: 'opening.json',
      mimeType: 'application/json',
      buffer: Buffer.from(content),
    });
    const state = await (await page.waitForSelector('[data-opening]')).getAttribute('data-opening');
    const text = await page.locator('main .steps').innerText();
    await page.evaluate(() => document.querySelector('main .steps').replaceChildren());
    return { state, text };
  };
  const content = await readFile(file, 'utf8');
  const good = await check(content);
  assert.equal(good.state, 'good', good.text);
  assert.match(good.text, /network address of the caller\n?\s*127\.0\.0\.1/);
  assert.match(good.text, /It has this very entry at this place/);
  // Offline it holds too.
  await context.setOffline(true);
  assert.equal((await check(content)).state, 'good');
  await context.setOffline(false);
  const changed = (change) => {
    const opening = JSON.parse(content);
    change(opening);
    return JSON.stringify(opening);
  };
  const flip = (text) => {
    const bytes = Buffer.from(text, 'base64');
    bytes[bytes.length - 1] ^= 1;
    return bytes.toString('base64');
  };
  for (const [change, meaning] of [
    [(opening) => (opening.openings[0].value = flip(opening.openings[0].value)), /computed from another value/],
    [(opening) => (opening.openings[0].salt = flip(opening.openings[0].salt)), /computed from another value/],
    [(opening) => (opening.entry = flip(opening.entry)), /does not stand in the signed log/],
    [(opening) => (opening.index += 1), /does not stand in the signed log/],
    [(opening) => (opening.checkpoint = opening.checkpoint.replace(/\n\d+\n/, '\n9\n')), /signature is wrong/],
  ]) {
    const bad = await check(changed(change));
    assert.equal(bad.state, 'bad', bad.text);
    assert.match(bad.text, meaning);
  }
  await page.setInputFiles('#opening', { name: 'x.json', mimeType: 'application/json', buffer: Buffer.from('{}') });
  await page.waitForSelector('main .steps .fault');
  assert.deepEqual(
    faults.filter((fault) => !fault.includes('ERR_INTERNET_DISCONNECTED')),
    [],
  );
  await context.close();
  return href.slice(11, 47);
}
