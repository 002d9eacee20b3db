// Addresses within the portal: #/page/rest?name=value

/** The address of a page in a state. What is empty is left out. */
export function href(page, params = {}, rest = '') {
  const given = Object.entries(params).filter(([, value]) => value !== undefined && value !== null && value !== '');
  const query = new URLSearchParams(given).toString();
  return `#/${page}${rest ? `/${rest.split('/').map(encodeURIComponent).join('/')}` : ''}${query ? `?${query}` : ''}`;
}

export function parseHash(hash = location.hash) {
  const [path, query] = hash.replace(/^#\/?/, '').split('?');
  const [page, ...rest] = path.split('/').map(decode);
  return { page, rest: rest.join('/'), params: Object.fromEntries(new URLSearchParams(query ?? '')) };
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Goes to a state of a page; the language stays as the address has it. */
export function go(page, params, rest) {
  const { lang } = parseHash().params;
  location.hash = href(page, { lang, ...params }, rest).slice(1);
}
