"use strict";
// The report: one page, all of whose figures stand in one block.
charts.draw(JSON.parse(document.getElementById("figures").textContent));
