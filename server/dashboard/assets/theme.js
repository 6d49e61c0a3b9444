"use strict";
// Light or dark: as the system has it, or as was chosen here, which this browser keeps. Runs before the page is drawn.
(() => {
  const system = "(prefers-color-scheme: dark)";
  const kept = () => {
    try {
      return localStorage.getItem("fednotes-theme") ?? "";
    } catch {
      return ""; // a browser that keeps nothing
    }
  };
  const apply = (theme) => {
    document.getElementById("dark").media = { light: "not all", dark: "all" }[theme] ?? system;
    window.Quasar?.Dark.set(theme ? theme === "dark" : "auto");
    if (typeof charts !== "undefined") charts.again();
  };
  apply(kept());
  addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    if (!choice) return;
    choice.value = kept();
    apply(choice.value);
    choice.addEventListener("change", () => {
      try {
        localStorage.setItem("fednotes-theme", choice.value);
      } catch {
        // it holds for this page alone
      }
      apply(choice.value);
    });
  });
})();
