// The slider over the grids, and the values under the pointer. The page can be read without either.
(() => {
  const samples = document.getElementById("samples");
  if (samples) slider(samples);
  document.querySelectorAll("svg.chart").forEach(readings);

  function slider(section) {
    const moment = section.querySelector("#moment"), play = section.querySelector("#play");
    const moments = JSON.parse(moment.dataset.moments);
    const viewers = [...section.querySelectorAll(".viewer")];
    const images = (seen) => seen.toLocaleString("en-US") + " images";
    const averages = section.querySelector('img[data-network="average"]');
    section.querySelector(".controls").hidden = moments.length < 2 && !averages;
    section.querySelector("#network").hidden = !averages || !section.querySelector('img[data-network="generator"]');
    let timer = null;

    function show() {
      const seen = moments[moment.value];
      const network = section.querySelector("#network input:checked").value;
      section.querySelector("#seen").textContent = images(seen);
      moment.setAttribute("aria-valuetext", images(seen));
      for (const viewer of viewers) {
        const frames = [...viewer.querySelectorAll("img")];
        const own = frames.filter((frame) => frame.dataset.network === network);
        const choice = own.length ? own : frames;
        const shown = choice.filter((frame) => Number(frame.dataset.seen) <= seen).pop() || choice[0];
        frames.forEach((frame) => { frame.hidden = frame !== shown; });
        viewer.querySelector(".at").textContent = images(Number(shown.dataset.seen));
      }
    }
    function stop() {
      clearInterval(timer);
      timer = null;
      play.textContent = "Play";
    }
    function step() {
      if (Number(moment.value) >= moments.length - 1) return stop();
      moment.value = Number(moment.value) + 1;
      show();
    }
    play.addEventListener("click", () => {
      if (timer) return stop();
      if (Number(moment.value) >= moments.length - 1) moment.value = 0;
      play.textContent = "Pause";
      timer = setInterval(step, Math.max(120, Math.min(700, 7000 / moments.length)));
      show();
    });
    moment.addEventListener("input", () => { stop(); show(); });
    section.querySelector("#network").addEventListener("change", show);
    show();
  }

  function readings(chart) {
    const reading = document.getElementById("reading"), cross = chart.querySelector(".cross");
    const sheet = chart.viewBox.baseVal;
    const lines = [...chart.querySelectorAll("path[data-points]")]
      .map((line) => ({ label: line.dataset.label, points: JSON.parse(line.dataset.points) }));
    const nearest = (points, x) => points.reduce((best, point) =>
      Math.abs(point[0] - x) < Math.abs(best[0] - x) ? point : best);

    chart.addEventListener("pointermove", (event) => {
      const box = chart.getBoundingClientRect();
      const x = (event.clientX - box.left) / box.width * sheet.width;
      const found = lines.map((line) => [line.label, nearest(line.points, x)]);
      const [, first] = found[0];
      cross.setAttribute("d", `M${first[0]} 10V${sheet.height - 40}`);
      reading.textContent = `${first[2]} images\n` + found.map(([label, point]) => `${point[3]}  ${label}`).join("\n");
      reading.hidden = false;
      const left = Math.min(event.clientX + 14, innerWidth - reading.offsetWidth - 8);
      reading.style.left = Math.max(8, left) + "px";
      reading.style.top = Math.max(8, event.clientY - reading.offsetHeight - 12) + "px";
    });
    chart.addEventListener("pointerleave", () => { reading.hidden = true; cross.setAttribute("d", ""); });
  }
})();
