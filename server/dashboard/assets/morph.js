"use strict";
// Makes what is on the page equal to new HTML, and keeps what a person did there: focus, what was opened or pressed,
// where a table was scrolled to. Elements are matched by id, others in their order.
const morph = (() => {
  const same = (one, other) => one.nodeName === other.nodeName && (one.id ?? "") === (other.id ?? "");
  const match = (from, wanted) => {
    let found = from;
    while (found && !same(found, wanted)) found = found.nextSibling;
    return found;
  };
  const keeps = (element, name) =>
    (name === "open" && element.nodeName === "DETAILS") ||
    (name === "aria-pressed" && element.closest(".legend")) ||
    (element.classList.contains("chart") && name !== "aria-label"); // Plotly has set them
  const attributes = (old, now) => {
    for (const { name } of [...old.attributes])
      if (!now.hasAttribute(name) && !keeps(old, name)) old.removeAttribute(name);
    for (const { name, value } of now.attributes)
      if (old.getAttribute(name) !== value && !keeps(old, name)) old.setAttribute(name, value);
  };
  const node = (old, now) => {
    if (old.nodeType !== Node.ELEMENT_NODE) {
      if (old.data !== now.data) old.data = now.data;
      return;
    }
    attributes(old, now);
    if (!old.classList.contains("chart")) children(old, now); // what is in a chart is Plotly's
  };
  const children = (old, now) => {
    let at = old.firstChild;
    for (const wanted of [...now.childNodes]) {
      const found = match(at, wanted);
      if (!found) {
        old.insertBefore(wanted, at);
        continue;
      }
      if (found === at) at = at.nextSibling;
      else old.insertBefore(found, at);
      node(found, wanted);
    }
    while (at) {
      const gone = at;
      at = at.nextSibling;
      gone.remove();
    }
  };
  return (root, html) => {
    const focused = document.activeElement;
    const now = document.createElement("template");
    now.innerHTML = html;
    children(root, now.content);
    if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  };
})();
