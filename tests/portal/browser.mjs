// Chromium as Debian has it, driven by playwright-core; and what every page has to keep to, whatever else a test looks at.

import { createRequire } from 'node:module';
import { join } from 'node:path';

export async function launch(work) {
  const require = createRequire(join(work, 'node_modules/'));
  const { chromium } = require('playwright-core');
  const { AxeBuilder } = require('@axe-core/playwright');
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  });
  return { browser, AxeBuilder };
}

/** A page that keeps account of errors and of requests to others than its own server. */
export async function open(browser, url, options = {}) {
  const context = await browser.newContext({
    viewport: { width: 1200, height: 900 },
    locale: 'en',
    timezoneId: 'UTC',
    acceptDownloads: true,
    ...options,
  });
  const page = await context.newPage();
  const faults = [];
  page.on('console', (message) => message.type() === 'error' && faults.push(`console: ${message.text()}`));
  page.on('pageerror', (error) => faults.push(`error: ${error.message}`));
  page.on(
    'request',
    (request) =>
      !/^(data|blob):/.test(request.url()) &&
      new URL(request.url()).origin !== new URL(url).origin &&
      faults.push(`request to ${request.url()}`),
  );
  page.setDefaultTimeout(15_000);
  return { page, context, faults };
}

/** Goes to a state of the portal, and waits until it is shown. */
export async function show(page, portal, hash = '#/') {
  const target = `${portal}${hash}`;
  if (page.url() === target) await page.reload();
  else await page.goto(target);
  await settled(page);
}

/** Until the page that the address names is there whole. */
export async function settled(page) {
  await page.waitForSelector('main .content[aria-busy="false"]');
  await page.waitForFunction(() => !document.querySelector('main .busy'));
}

/** Findings of axe that are serious or worse. */
export async function axe(AxeBuilder, page, rules) {
  const builder = new AxeBuilder({ page });
  const { violations } = await (
    rules
      ? builder.withRules(rules)
      : builder.withTags(['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'])
  ).analyze();
  const grave = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  return grave.map(
    ({ id, impact, nodes }) =>
      `${impact} ${id}: ${nodes
        .slice(0, 3)
        .map(({ target, failureSummary }) => `${target} ${failureSummary?.split('\n').slice(1, 3).join(' ')}`)
        .join(' | ')}`,
  );
}
