// Pictures of each page for docs/portal/: node screenshots.mjs --demo FOLDER --work FOLDER --out docs/portal
// Those of a body and of the overview are of three months made up by synthetic.mjs, the others of the demo.

import { mkdir } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { launch, open, settled, show } from './browser.mjs';
import { serve } from './serve.mjs';
import { synthetic } from './synthetic.mjs';

const { values } = parseArgs({
  options: { demo: { type: 'string' }, work: { type: 'string' }, out: { type: 'string' } },
});
const [published, work, out] = [join(resolve(values.demo), 'published'), resolve(values.work), resolve(values.out)];
await mkdir(out, { recursive: true });
const made = await synthetic(join(work, 'large'), join(published, 'portal'), published);
const [demo, large] = [await serve(published), await serve(join(work, 'large'), made.virtual)];
const { browser } = await launch(work);
const [DESK, PHONE] = [
  { width: 1100, height: 1250 },
  { width: 390, height: 844 },
];

const SHOTS = [
  ['overview', large, '#/?period=92', DESK, 'light', 'en'],
  ['overview-phone-dark', large, '#/', PHONE, 'dark', 'ky'],
  ['exchanges', demo, '#/exchanges', DESK, 'light', 'ru'],
  ['exchanges-phone', demo, '#/exchanges', PHONE, 'light', 'ky'],
  ['exchange', demo, 'first', DESK, 'light', 'en'],
  ['exchange-verified-dark', demo, 'verify', DESK, 'dark', 'en'],
  ['exchange-tampered', demo, 'tampered', DESK, 'light', 'ru'],
  ['grants', demo, '#/grants', DESK, 'light', 'ky'],
  ['bodies', large, '#/bodies', DESK, 'light', 'ru'],
  ['body', large, '#/body/KG/GOV/70000001', DESK, 'light', 'en'],
  ['my-data', demo, '#/my-data', DESK, 'light', 'ky'],
  ['open-data', large, '#/open-data', DESK, 'light', 'en'],
];
for (const [name, server, hash, viewport, colorScheme, locale] of SHOTS) {
  const { page, context, faults } = await open(browser, server.url, {
    viewport,
    colorScheme,
    locale,
    deviceScaleFactor: viewport === PHONE ? 1 : 0.8,
  });
  await show(page, `${server.url}/portal/`, hash.startsWith('#') ? hash : '#/exchanges?outcome=OK');
  if (!hash.startsWith('#')) {
    await page.locator('table.list tbody tr a').first().click();
    await page.waitForURL(/exchange\//);
    await settled(page);
    if (hash === 'tampered') {
      await page.route('**/tile/entries/**', async (route) => {
        const bytes = Buffer.from(await (await route.fetch()).body());
        for (let at = 0; at < bytes.length; at += 2 + bytes.readUInt16BE(at))
          bytes[at + 1 + bytes.readUInt16BE(at)] ^= 1;
        await route.fulfill({ body: bytes });
      });
      // What was read before is forgotten.
      await page.reload();
      await settled(page);
    }
    if (hash !== 'first') {
      await page.locator('.verify').click();
      await page.waitForSelector('[data-verified]');
      await page.locator('[data-verified]').evaluate((verdict) => verdict.closest('section').scrollIntoView());
    }
  }
  await page.waitForTimeout(250);
  await page.screenshot({ path: join(out, `${name}.png`) });
  console.log(name, faults.join('; '));
  await context.close();
}
await browser.close();
demo.close();
large.close();
