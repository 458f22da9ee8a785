// Search, the meaning of words, folding, copying, enlarged pictures, and the arrow keys. All else
// works without.
const root = document.currentScript.dataset.root;
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};

// Each cell of a table has its heading, for windows in which the cells are below each other. What
// is folded is printed, too.
for (const table of document.querySelectorAll('main table')) {
  const heads = [...table.querySelectorAll('th')].map(th => th.textContent);
  for (const row of table.querySelectorAll('tbody tr')) {
    [...row.cells].forEach((cell, i) => { if (i > 0 && heads[i]) cell.dataset.label = heads[i]; });
  }
}
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details:not([open])')];
  for (const details of opened) details.open = true;
});
addEventListener('afterprint', () => { for (const details of opened) details.open = false; });

// Each console has a button that copies its commands, and each piece of code one that copies it.
const copy = async text => {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // no clipboard without https, or from a file
    const area = make('textarea', {value: text});
    document.body.append(area);
    area.select();
    document.execCommand('copy');
    area.remove();
  }
};
const copies = (button, text) => button.addEventListener('click', async () => {
  await copy(text);
  button.textContent = 'copied';
  setTimeout(() => { button.textContent = 'copy'; }, 1500);
});
for (const button of document.querySelectorAll('.console .copy')) {
  const commands = [...button.parentElement.querySelectorAll('.command')].map(c => c.textContent).join('\n');
  if (commands === '') continue;
  button.hidden = false;
  copies(button, commands);
}
for (const code of document.querySelectorAll('.code')) {
  const button = make('button', {type: 'button', className: 'copy', textContent: 'copy'});
  copies(button, code.querySelector('pre').textContent.trimEnd() + '\n');
  code.append(button);
}

// "Only what is new" folds the declarations without a new line.
const only = document.getElementById('only');
if (only) {
  only.closest('.switch').hidden = false;
  const old = [...document.querySelectorAll('.code > details[open]')].filter(details => !details.querySelector('.n'));
  only.addEventListener('change', () => {
    for (const details of old) {
      details.open = !only.checked;
      details.classList.toggle('may-fold', only.checked);
    }
  });
}

// A link to the glossary shows the meaning: when it is pointed at, has the focus, or is touched for
// the first time.
const tip = make('div', {id: 'tip', role: 'tooltip', hidden: true});
document.body.append(tip);
for (const link of document.querySelectorAll('main a[title][href*="GLOSSARY.html#"]')) {
  const meaning = link.title;
  link.removeAttribute('title');
  link.classList.add('word');
  link.setAttribute('aria-describedby', 'tip');
  const show = () => {
    tip.textContent = meaning;
    tip.hidden = false;
    const at = link.getBoundingClientRect();
    tip.style.left = Math.max(8, Math.min(at.left, innerWidth - tip.offsetWidth - 8)) + scrollX + 'px';
    tip.style.top = (at.bottom + tip.offsetHeight + 6 < innerHeight ? at.bottom + 6 : at.top - tip.offsetHeight - 6) + scrollY + 'px';
  };
  link.addEventListener('pointerenter', event => event.pointerType === 'mouse' && show());
  link.addEventListener('pointerleave', () => { tip.hidden = true; });
  link.addEventListener('focus', show);
  link.addEventListener('blur', () => { tip.hidden = true; });
  link.addEventListener('pointerup', event => {
    if (event.pointerType === 'mouse' || !tip.hidden && tip.textContent === meaning) return;
    show();
    link.addEventListener('click', click => click.preventDefault(), {once: true});
  });
}

// A picture fills the window.
for (const link of document.querySelectorAll('a.zoom')) {
  link.addEventListener('click', event => {
    event.preventDefault();
    const dialog = make('dialog', {ariaLabel: link.firstChild.alt}, make('img', {src: link.href, alt: link.firstChild.alt}));
    dialog.addEventListener('click', () => dialog.close());
    dialog.addEventListener('close', () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Search: each word of the query has to begin a word of the section. The index is a script, which
// can be loaded from files.
const search = document.getElementById('search'), found = document.getElementById('found');
search.parentElement.hidden = false;
const find = () => {
  const terms = search.value.toLowerCase().match(/[\p{L}\p{N}_]{2,}/gu);
  if (!terms || !window.searchIndex) return found.replaceChildren();
  const points = place => { // of a title: that of a page before those of its sections
    const [url, title] = searchIndex.places[place], name = title.toLowerCase().split(' › ').at(-1);
    return terms.filter(term => name.match(/[\p{L}\p{N}_]+/gu)?.includes(term)).length * (url.includes('#') ? 2 : 4);
  };
  const sets = terms.map(term => {
    const places = new Map(); // 2 for the word itself, 1 for one that begins with it
    for (const word in searchIndex.words) {
      if (word.startsWith(term)) for (const place of searchIndex.words[word]) places.set(place, Math.max(places.get(place) ?? 0, word === term ? 2 : 1));
    }
    return places;
  });
  const best = [...sets[0].keys()].filter(place => sets.every(s => s.has(place)))
    .map(place => [place, points(place) + sets.reduce((sum, s) => sum + s.get(place), 0)])
    .sort((a, b) => b[1] - a[1] || a[0] - b[0]).slice(0, 15);
  found.replaceChildren(...best.map(([place]) => {
    const [url, title] = searchIndex.places[place];
    return make('li', {}, make('a', {href: root + url, textContent: title}));
  }));
  if (best.length === 0) found.append(make('li', {textContent: 'nothing'}));
};
search.addEventListener('focus', () => {
  if (!window.searchIndex) document.head.append(make('script', {src: root + 'index.js', onload: find}));
}, {once: true});
search.addEventListener('input', find);
search.addEventListener('keydown', event => {
  if (event.key === 'Enter') found.querySelector('a')?.click();
});
found.addEventListener('click', () => { search.value = ''; found.replaceChildren(); });

document.addEventListener('keydown', event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.key === 'Escape') { tip.hidden = true; search.value = ''; found.replaceChildren(); }
  if (event.target.closest('input, textarea, pre, dialog')) return; // there the arrows scroll
  if (event.key === '/') {
    event.preventDefault();
    search.focus();
  }
  const rel = {ArrowLeft: 'prev', ArrowRight: 'next'}[event.key];
  const link = rel && document.querySelector(`a[rel=${rel}]`);
  if (link) location.href = link.href;
});
