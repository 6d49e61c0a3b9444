"use strict";
// Draws the figures of a page when they come near the window, or all of them before it is printed, and draws them again
// where their data changed. The report and the dashboard share it: the report holds Plotly, the dashboard says where it is.
const charts = (() => {
  const figures = new Map(); // the place on the page -> what is to be drawn there
  const hidden = new Map(); // the place on the page -> the groups that the legend hides
  const behind = new Set(); // places that do not show their figure yet
  const near = new Map(); // the place on the page -> whether it is near the window; undefined where that is not known yet
  const watched = new Map(); // the place on the page -> its element
  const config = { displayModeBar: false, responsive: true };
  const address = document.currentScript?.dataset.plotly;

  let loading = null;
  const plotly = () =>
    (loading ??= window.Plotly
      ? Promise.resolve()
      : new Promise((loaded) => {
          const script = document.createElement("script");
          script.onload = loaded;
          script.onerror = () => (loading = null); // the next figure tries again
          script.src = address;
          document.head.append(script);
        }));

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
    behind.delete(id);
    const gone = hidden.get(id) ?? new Set();
    const data = figures.get(id).data.map((trace) => (gone.has(trace.legendgroup) ? { ...trace, visible: false } : trace));
    return Plotly.react(id, data, themed(figures.get(id).layout), config);
  };
  // `drawn` on the page: what is near the window shows its figure.
  const settle = () => {
    const open = [...watched.keys()].some((id) => near.get(id) === undefined || (near.get(id) && behind.has(id)));
    document.documentElement.classList.toggle("drawn", figures.size > 0 && !open);
  };
  const catchUp = async () => {
    settle();
    if (![...behind].some((id) => near.get(id))) return;
    await plotly();
    await Promise.all([...behind].filter((id) => near.get(id) && watched.get(id).isConnected).map(show));
    settle();
  };
  const watcher = new IntersectionObserver(
    (seen) => {
      for (const { target, isIntersecting } of seen) if (watched.has(target.id)) near.set(target.id, isIntersecting);
      catchUp();
    },
    { rootMargin: "50% 0px" },
  );

  let soon = null;
  const draw = (given) => {
    soon ??= setTimeout(plotly, 3000);
    for (const [id, figure] of Object.entries(given)) {
      figures.set(id, figure);
      behind.add(id);
      const element = document.getElementById(id);
      if (watched.get(id) === element) continue;
      watched.set(id, element);
      near.delete(id);
      watcher.observe(element);
    }
    catchUp();
  };
  // Of charts that are no longer on the page nothing is kept.
  const forget = () => {
    for (const [id, element] of watched)
      if (!element.isConnected) {
        watcher.unobserve(element);
        for (const kept of [figures, hidden, behind, near, watched]) kept.delete(id);
      }
  };
  const again = () => {
    forget();
    for (const id of figures.keys()) behind.add(id);
    catchUp();
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".legend button");
    if (!button) return;
    const shown = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(shown));
    for (const id of button.closest(".legend").dataset.charts.split(" ").filter(Boolean)) {
      if (!hidden.has(id)) hidden.set(id, new Set());
      hidden.get(id)[shown ? "delete" : "add"](button.dataset.group);
      behind.add(id);
    }
    catchUp();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", again);
  // What is printed is the whole page, and nothing can be waited for: Plotly is there before it is needed.
  addEventListener("beforeprint", () => {
    if (window.Plotly) for (const id of [...behind]) show(id);
    settle();
  });
  return { draw, again, forget };
})();
