"use strict";
// Draws the figures of a page, and draws them again where their data changed. The report and the dashboard share it.
const charts = (() => {
  const figures = new Map(); // the place on the page -> what is drawn there
  const hidden = new Map(); // the place on the page -> the groups that the legend hides
  const config = { displayModeBar: false, responsive: true };

  // The figures are drawn for a light page; text and hover boxes follow the page's own colours.
  const themed = (layout) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    return {
      ...layout,
      font: { ...layout.font, color: colour("--ink") },
      hoverlabel: {
        ...layout.hoverlabel,
        bgcolor: colour("--raised"),
        bordercolor: colour("--line-strong"),
        font: { ...layout.hoverlabel?.font, color: colour("--ink") },
      },
    };
  };
  const show = (id) => {
    const gone = hidden.get(id) ?? new Set();
    const data = figures.get(id).data.map((trace) => (gone.has(trace.legendgroup) ? { ...trace, visible: false } : trace));
    return Plotly.react(id, data, themed(figures.get(id).layout), config);
  };
  const draw = (given) => {
    const drawn = Object.entries(given).map(([id, figure]) => {
      figures.set(id, figure);
      return show(id);
    });
    return Promise.all(drawn).then(() => document.documentElement.classList.add("drawn"));
  };
  // Of charts that are no longer on the page nothing is kept.
  const forget = () => {
    for (const id of figures.keys()) if (!document.getElementById(id)) (figures.delete(id), hidden.delete(id));
  };
  const again = () => {
    forget();
    for (const id of figures.keys()) show(id);
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".legend button");
    if (!button) return;
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const id of button.closest(".legend").dataset.charts.split(" ").filter(Boolean)) {
      if (!hidden.has(id)) hidden.set(id, new Set());
      hidden.get(id)[shown ? "delete" : "add"](button.dataset.group);
      show(id);
    }
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  return { draw, again, forget };
})();
