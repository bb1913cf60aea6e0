// The contrast of each text, arrow, line and edge that is shown with what lies behind it, as WCAG 2
// defines it: [what, contrast, least]. Runs within the page, whose luminance() it uses.
const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
function rgba(colour) {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return [...canvas.getImageData(0, 0, 1, 1).data].map((x, i) => (i === 3 ? x / 255 : x));
}
function behind(node) {
  if (!node) return [255, 255, 255, 1];
  const own = rgba(getComputedStyle(node).backgroundColor);
  return own[3] === 1 ? own : behind(node.parentElement);
}
function contrast(one, other) {
  const [low, high] = [one, other].map((x) => luminance(x.slice(0, 3))).sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}
const found = [];
const add = (what, colour, back, least) => found.push([what, contrast(rgba(colour), back), least]);

const skipped = '.unseen, #maps svg, option, button:disabled, textarea';
const texts = document.createTreeWalker(document.querySelector('article'), NodeFilter.SHOW_TEXT);
while (texts.nextNode()) {
  const node = texts.currentNode.parentElement, text = texts.currentNode.data.trim();
  if (!text || !node.checkVisibility() || node.closest(skipped)) continue;
  const style = getComputedStyle(node), colour = node.closest('svg') ? style.fill : style.color;
  add(`${node.id || node.tagName}: ${text.slice(0, 30)}`, colour, behind(node), 4.5);
}
for (const { cells } of Object.values(pictures)) {
  for (const { rect, letter, number, arrow } of cells) {
    if (!rect.checkVisibility() || rect.getAttribute('fill').startsWith('url')) continue;
    const back = rgba(getComputedStyle(rect).fill);
    for (const node of [letter, number]) {
      if (node.textContent) add(`cell: ${node.textContent}`, getComputedStyle(node).fill, back, 4.5);
    }
    const grey = arrow.getAttribute('stroke') === 'var(--unseen)'; // where it never comes
    if (arrow.getAttribute('d') && !grey) add('arrow', getComputedStyle(arrow).stroke, back, 3);
  }
}
for (const line of document.querySelectorAll('#curve polyline, #curve line[stroke="var(--ink)"]')) {
  add(`line ${line.className.baseVal}`, getComputedStyle(line).stroke, behind(line.parentElement), 3);
}
for (const node of document.querySelectorAll('button:enabled, select, input[type=number]')) {
  if (!node.checkVisibility()) continue;
  const style = getComputedStyle(node), back = behind(node.parentElement);
  const filled = contrast(rgba(style.backgroundColor), back) >= 3; // or it needs an edge
  if (!filled) add(`edge of ${node.id || node.textContent}`, style.borderTopColor, back, 3);
}
return found;
