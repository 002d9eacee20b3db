// The portal of a real demo run in a real browser: every page in three languages, search, shared links, verification good and
// tampered, openings, keyboard alone, axe, no error in the console, no request to another host; and ten million entries.
//
//   node run.mjs --kopuro target/release/kopuro --demo target/ci-demo --work target/portal [--only NAME]
//
// `--demo` is the folder of `kopuro demo --once --dir`. `--work` gets playwright-core and axe from npm, once.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

import { launch } from './browser.mjs';
import { serve } from './serve.mjs';
import { synthetic } from './synthetic.mjs';
import * as look from './look.mjs';
import * as verify from './verify.mjs';
import * as large from './large.mjs';

const PACKAGES = ['playwright-core@1.65.1', '@axe-core/playwright@4.13.0'];

const { values } = parseArgs({
  options: { kopuro: { type: 'string' }, demo: { type: 'string' }, work: { type: 'string' }, only: { type: 'string' } },
});
const [kopuro, demo, work] = ['kopuro', 'demo', 'work'].map((name) => resolve(values[name]));

if (!existsSync(join(work, 'node_modules/playwright-core'))) {
  await mkdir(work, { recursive: true });
  execFileSync(
    'npm',
    [
      'install',
      '--silent',
      '--no-audit',
      '--no-fund',
      '--ignore-scripts',
      '--no-save',
      '--no-package-lock',
      '--prefix',
      work,
      ...PACKAGES,
    ],
    { stdio: 'inherit' },
  );
}
const published = join(demo, 'published');
assert(existsSync(join(published, 'portal/index.html')), `${published}/portal/index.html: the demo writes it`);
await rm(join(work, 'large'), { recursive: true, force: true });
const made = await synthetic(join(work, 'large'), join(published, 'portal'), published);

const { browser, AxeBuilder } = await launch(work);
const [server, largeServer] = [await serve(published), await serve(join(work, 'large'), made.virtual)];
const world = {
  browser,
  AxeBuilder,
  kopuro,
  demo,
  published,
  work,
  server,
  portal: `${server.url}/portal/`,
  largeServer,
  largePortal: `${largeServer.url}/portal/`,
  made,
};
let failed = 0;
for (const [name, test] of Object.entries({ ...look, ...verify, ...large })) {
  if (values.only && name !== values.only) continue;
  const began = performance.now();
  try {
    const told = await test(world);
    console.log(`ok    ${name} (${((performance.now() - began) / 1000).toFixed(1)} s)${told ? `: ${told}` : ''}`);
  } catch (error) {
    failed += 1;
    console.error(`FAILED ${name}: ${error.stack}`);
  }
}
await browser.close();
server.close();
largeServer.close();
process.exit(failed ? 1 : 0);
