// Ten million entries: no page reads more than it must, and nothing takes long.

import assert from 'node:assert/strict';

import { open, show } from './browser.mjs';

// The site itself, once, is about 280 kB; a bundle is about 50 kB.
const FIRST = 700_000;

export async function tenMillionEntries({ browser, largePortal, largeServer, made }) {
  assert(made.entries > 9_500_000, `${made.entries} entries`);
  const told = [`${made.entries} entries`];
  for (const hash of [
    '#/',
    '#/?period=all',
    '#/exchanges',
    '#/grants',
    '#/bodies',
    '#/body/KG/GOV/70000002',
    '#/open-data',
  ]) {
    const { page, context, faults } = await open(browser, largePortal);
    const before = largeServer.sent.bytes;
    const began = performance.now();
    await show(page, largePortal, hash);
    const took = performance.now() - began;
    const read = largeServer.sent.bytes - before;
    told.push(`${hash} ${Math.round(took)} ms ${Math.round(read / 1000)} kB`);
    assert(read < FIRST, `${hash} reads ${read} bytes`);
    assert(took < 5_000, `${hash} takes ${Math.round(took)} ms`);
    assert.deepEqual(faults, []);
    await context.close();
  }
  return told.join(', ');
}

export async function aRareExchangeIsFoundAmongMany({ browser, largePortal, largeServer }) {
  const { page, context, faults } = await open(browser, largePortal);
  const before = largeServer.sent.bytes;
  await show(page, largePortal, '#/exchanges?reason=GRANT_MISSING&until=2026-10-01');
  const rows = await page.locator('table.list tbody tr').count();
  assert.equal(rows, 25);
  assert.match(await page.locator('table.list tbody tr').first().innerText(), /^1\sOct/);
  assert(largeServer.sent.bytes - before < 4_000_000, `${largeServer.sent.bytes - before} bytes`);
  assert.deepEqual(faults, []);
  await context.close();
}

export async function unusualDaysAreMarked({ browser, largePortal }) {
  const { page, context, faults } = await open(browser, largePortal);
  await show(page, largePortal, '#/body/KG/GOV/70000001');
  const told = await page.locator('.unusual').last().innerText();
  assert.match(told, /17\sNovember\s2026.*Far more than usual/s);
  assert.deepEqual(faults, []);
  await context.close();
}

export async function scrollingIsSmooth({ browser, largePortal }) {
  const { page, context } = await open(browser, largePortal);
  await show(page, largePortal, '#/?period=92');
  const frames = await page.evaluate(
    () =>
      new Promise((done) => {
        const began = performance.now();
        let frames = 0;
        const step = () => {
          frames += 1;
          scrollTo(0, (document.documentElement.scrollHeight - innerHeight) * Math.abs(Math.sin(frames / 30)));
          if (performance.now() - began < 1500) requestAnimationFrame(step);
          else done(frames / 1.5);
        };
        requestAnimationFrame(step);
      }),
  );
  // Software rendering on a shared machine: far below this is a fault of ours.
  assert(frames > 25, `${frames} frames a second`);
  await context.close();
  return `${Math.round(frames)} frames a second`;
}
