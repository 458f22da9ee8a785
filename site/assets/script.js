// The buttons that copy the commands of a console, and the arrow keys. All else works without.
for (const button of document.querySelectorAll('.copy')) {
  const commands = [...button.parentElement.querySelectorAll('.command')].map(c => c.textContent).join('\n');
  if (commands === '') continue;
  button.hidden = false;
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(commands);
    } catch { // no clipboard without https, or from a file
      const text = document.createElement('textarea');
      text.value = commands;
      document.body.append(text);
      text.select();
      document.execCommand('copy');
      text.remove();
    }
    button.textContent = 'copied';
    setTimeout(() => { button.textContent = 'copy'; }, 1500);
  });
}
document.addEventListener('keydown', event => {
  if (event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) return;
  if (event.target.closest('input, textarea, pre')) return; // there the arrows scroll
  const rel = {ArrowLeft: 'prev', ArrowRight: 'next'}[event.key];
  const link = rel && document.querySelector(`a[rel=${rel}]`);
  if (link) location.href = link.href;
});
