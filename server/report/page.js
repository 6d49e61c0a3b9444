"use strict";
(() => {
  const figures = JSON.parse(document.getElementById("figures").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const config = { displayModeBar: false, responsive: true };

  // The figures are drawn for a light page; text and hover boxes follow the page's own colours.
  const theme = () => {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--ink").trim();
    return {
      "font.color": ink,
      "hoverlabel.bgcolor": style.getPropertyValue("--raised").trim(),
      "hoverlabel.bordercolor": style.getPropertyValue("--line-strong").trim(),
      "hoverlabel.font.color": ink,
    };
  };
  const drawn = Object.entries(figures).map(([id, figure]) =>
    Plotly.newPlot(id, figure.data, figure.layout, config).then((plot) => Plotly.relayout(plot, theme())),
  );
  dark.addEventListener("change", () => {
    for (const id of Object.keys(figures)) Plotly.relayout(id, theme());
  });
  Promise.all(drawn).then(() => document.documentElement.classList.add("drawn"));

  for (const legend of document.querySelectorAll(".legend")) {
    legend.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      const shown = button.getAttribute("aria-pressed") !== "true";
      button.setAttribute("aria-pressed", String(shown));
      for (const id of legend.dataset.charts.split(" ").filter(Boolean)) {
        const traces = figures[id].data
          .map((trace, index) => (trace.legendgroup === button.dataset.group ? index : -1))
          .filter((index) => index >= 0);
        if (traces.length) Plotly.restyle(id, { visible: shown }, traces);
      }
    });
  }
})();
