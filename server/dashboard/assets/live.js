"use strict";
// What the page does by itself: it fetches sections and draws their charts, tells how old its data are, and says so when
// no more come. A server that is dead cannot say that it is.
const page = (() => {
  const SILENCE = 15; // seconds without a beat from the server, which sends one every five
  const OPENING = 5; // seconds until a page that opens is called lost
  const root = document.documentElement;
  let feed = null;
  let behind = 0; // seconds that this machine's clock is behind the server's
  let beat = 0;

  const seconds = () => Date.now() / 1000;
  let met = seconds() + OPENING; // when the connection was there first, or should have been
  const ago = (age) => {
    if (age < 1) return "just now";
    if (age < 60) return `${Math.floor(age)} s ago`;
    if (age < 3600) return `${Math.floor(age / 60)} min ago`;
    if (age < 86400) return `${Math.floor(age / 3600)} h ${Math.floor((age % 3600) / 60)} min ago`;
    return `${Math.floor(age / 86400)} days ago`;
  };
  const clock = (time) => new Date(time * 1000).toLocaleString("sv"); // 2026-11-26 18:38:53
  const set = (element, text) => element && element.textContent !== text && (element.textContent = text);

  const state = () => {
    if (window.socket?.connected) met = Math.min(met, seconds());
    if ((!window.socket?.connected && seconds() > met) || seconds() - beat > SILENCE) {
      const since = `What is shown is as it was at ${clock(beat)}, and may be out of date.`;
      return ["lost", `Connection lost. ${since} This page tries again by itself; see whether fednotes dashboard still runs.`];
    }
    if (!feed.checked) return ["reading", "Reading the record."];
    if (feed.problem) return ["problem", `No news. ${feed.problem}`];
    if (feed.still) return ["still", feed.still];
    if (feed.heard && seconds() + behind - feed.heard > feed.stale)
      return ["old", "No news for long: what is shown may be out of date."];
    return ["live", "Live."];
  };
  let heeds = false;
  const tick = () => {
    if (!feed) return;
    if (window.socket && !heeds) {
      heeds = true;
      for (const change of ["connect", "disconnect"]) window.socket.on(change, tick);
    }
    const [name, words] = state();
    root.dataset.feed = name;
    set(document.querySelector(".feed .said"), words);
    set(document.querySelector(".feed .age"), feed.heard ? `Last news ${ago(seconds() + behind - feed.heard)}.` : "");
    for (const time of document.querySelectorAll("time[data-ago]"))
      set(time, ago(Math.max(0, seconds() + behind - Date.parse(time.dateTime) / 1000)));
  };
  const news = (given) => {
    feed = given;
    if (given.checked) behind = given.checked - seconds();
    beat = seconds();
    tick();
  };
  // The HTML of a section; null where it cannot be had.
  const fetched = (address) =>
    fetch(address)
      .then((answer) => (answer.status === 200 ? answer.text() : null))
      .catch(() => null);
  const drawn = (section) => {
    for (const data of section.querySelectorAll("script.figures")) {
      if (data.drawn === data.textContent) continue;
      data.drawn = data.textContent;
      charts.draw(JSON.parse(data.textContent));
    }
    charts.forget();
    tick();
  };

  setInterval(tick, 1000);
  return { news, fetched, drawn };
})();
