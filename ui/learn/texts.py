"""The words of each step: short paragraphs in order; a word in bold is explained where it stands.

`{names}` are facts of `facts.py`, read from the recorded run and the measured files; a paragraph
whose facts are missing is left out.
"""

TEXTS: dict[str, tuple[str, ...]] = {
    "A pool of adapters": (
        "A language model continues a text. It cuts the text into <b>tokens</b>, which are "
        "words or parts of words, and works out which token is likely to come next. That token "
        "is added to the text, and the model starts again. What you type is the <b>prompt</b>; "
        "what the model adds is the answer.",
        "Such a model can be trained further for one task, for example to put missing "
        "punctuation back into a text. A <b>LoRA adapter</b> is a small file that holds only "
        "what this training changed. The model that it changes is called the <b>base</b>, and "
        "stays as it was.",
        "Many people can make adapters for one base. All of them together are the <b>pool</b>. "
        "Nobody has to choose from it by hand: a prompt finds the adapters that fit it. Below, one "
        "token is followed all the way, and the next steps explain each part of that; then comes "
        "the pool of this page.",
    ),
    "A prompt becomes a vector": (
        "To find adapters for a prompt, texts have to be compared. So every text is turned into "
        "a list of numbers, always equally many: its <b>vector</b>. Here that is {size} "
        "numbers. The first {meaning} come from a second, small network, trained to give texts "
        "that ask for similar things similar numbers. The other {words} are places for its "
        "words. Each word, and each pair of words, adds to one of these places (plus or minus), "
        "rare ones more; several may fall on the same place.",
        "An adapter gets a vector as well: seven tenths of the mean of the vectors of prompts of "
        "its task (20 at most), three tenths of the vector of its description. Every vector is "
        "then scaled to <b>length 1</b>: the squares of its numbers add up to 1.",
        "Nobody can say what one of the first {meaning} means, and nobody needs to. What counts "
        "is how much two vectors are alike.",
    ),
    "The nearest adapters": (
        "Two vectors are compared like this: multiply the first number of one by the first "
        "number of the other, the second by the second, and so on, and add up all {size} "
        "products. Because both have length 1, the sum is 1 where the two vectors are the same, "
        "and 0 where they have nothing in common. This sum is their <b>similarity</b>.",
        "The prompt and <code>{nearest}</code>, number by number: {sum_of_products} = "
        "<b>{similarity}</b>. The first {meaning} products add up to {by_meaning}, the {words} "
        "of the words to {by_words}.",
        "The <b>k</b> adapters with the largest similarity are taken. Here k is 3.",
    ),
    "A small change to a layer": (
        "A network is a stack of layers. Inside it every token is a list of numbers. A layer takes "
        "such a list, <var>x</var>, and multiplies it by a table of numbers, the matrix "
        "<var>W</var>: each row of "
        "<var>W</var> is multiplied by <var>x</var>, number by number, and added up, as in step "
        "3. Each row gives one number of the result <var>W x</var>.",
        "A LoRA adapter does not replace <var>W</var>. It has two thin tables instead. "
        "<var>A</var> makes a few numbers out of <var>x</var>, as many as its <b>rank</b>, and "
        "<var>B</var> makes a full list out of these few. That list, <var>v</var> = <var>B A "
        "x</var>, is added to <var>W x</var>. One <var>W</var> of the real base, for example, has "
        "576 · 576 = 331,776 numbers, and an adapter of rank 4 has 2 · 4 · 576 = 4,608 for it. "
        "(LoRA is short for low-rank adaptation.)",
        "Several adapters can be added at once, each multiplied by a number of its own, its "
        "<b>weight</b> <var>w</var>. (Here “weight” means only this, not the trained numbers of a "
        "network.) The result <var>y</var> is the <b>mixture</b>:",
        '<span class="formula"><var>y</var> = <var>W x</var> + <var>w</var><sub>1</sub> '
        "<var>B</var><sub>1</sub> <var>A</var><sub>1</sub> <var>x</var> + "
        "<var>w</var><sub>2</sub> <var>B</var><sub>2</sub> <var>A</var><sub>2</sub> "
        "<var>x</var></span>",
        "Here is a layer so small that every number fits on the screen, with two adapters of "
        "rank 2. Move a slider: everything below is computed again from what stands above it.",
    ),
    "The gate": (
        "Who sets the weights? One answer is a <b>gate</b>: one more pair of thin tables beside "
        "each <var>W</var>, <var>A</var><sub>r</sub> and <var>B</var><sub>r</sub>. From "
        "<var>x</var> it makes a <b>query</b> <var>q</var>: what is wanted here. From what each "
        "adapter would add, its <var>v</var>, it makes a <b>key</b> <var>k</var>: what this "
        "adapter has to offer. (The small T at <var>B</var><sub>r</sub> says that its rows and "
        "columns have changed places.)",
        "Query and key are multiplied number by number and added up, which is written "
        "&lt;<var>q</var>, <var>k</var>&gt;. The better they match, the larger the sum. It is "
        "divided by the square root of <var>s</var>, which is how many numbers the query has; "
        "that keeps the sum from growing with <var>s</var>. Then e = 2.718… is raised to the "
        "power of each adapter's result; each of these positive numbers is divided by their sum, "
        "so that the weights add up to 1. The last two moves are called <b>softmax</b>.",
        '<span class="formula"><var>w</var><sub>j</sub> = softmax<sub>j</sub> ( '
        "&lt;<var>A</var><sub>r</sub> <var>x</var>, <var>B</var><sub>r</sub><sup>T</sup> "
        "<var>v</var><sub>j</sub>&gt; / √<var>s</var> )</span>",
        "Every token has its own <var>x</var> in every layer, so it gets its own weights there. "
        "The gate was trained once, to make right answers likelier, while base and adapters stayed "
        "as they were. For an adapter that joins the pool later it is not trained again, because "
        "it looks only at what an adapter adds.",
        "A way of setting the weights is called a <b>method</b>. This one is "
        "<code>ramole</code>. Unless you choose one, the page uses another, "
        "<code>ramole_plus</code>, which needs no training: it weighs the similarity of step 3 "
        "together with how strongly each adapter <b>responds</b>: how much longer its "
        "<var>v</var> is than is usual for it. (The <b>length of a list</b> is the square root of "
        "the sum of its squares.) The method called <code>mixture</code> gives equal weights; the "
        "word alone means any <var>y</var>.",
    ),
    "Which adapter did it": (
        "Now a real answer, recorded with <code>ramole</code> for the prompt of step 2. Pick a "
        "token, with a click or the arrow keys: the pictures show the weights at the moment "
        "when that token was chosen. (␣ is a space, ∎ the token that ends the answer. It has no "
        "text; the model's own name for it is &lt;|im_end|&gt;.)",
        "The base has {layers} layers, and each has seven tables like <var>W</var>, its "
        "<b>modules</b>. They are called q, k, v, o, gate, up and down, for reasons inside the "
        "base; these names have nothing to do with q, k, v and the gate of step 5. An "
        "adapter need not change every module. Where it lacks one, as all three do in the lowest "
        "layers, its field is empty; its weight there adds nothing.",
        "A weight alone does not say who did it: a large weight times a small <var>v</var> moves "
        "little. The <b>contribution</b> comes nearer: the length of <var>w v</var> divided by the "
        "length of <var>y</var>, averaged over all layers and modules. It says how far an adapter "
        "moved the model, but not whether this token came of it.",
        "So the page asks directly. For every next token the model gives each possible token a "
        "<b>probability</b>. How large would that of this token have been without the adapter? "
        "Prompt and answer are read again, with none of the adapters, with each of them, each two "
        "and all. Of each probability the logarithm is taken; its unit is the <b>nat</b>, and 0.7 "
        "nats more are twice as likely. What an adapter adds depends on who is there already: at "
        "{differ_token}, <code>{first}</code> raises the probability from {first_none} % to "
        "{first_alone} % if it comes first, and from {first_without} % to {first_all} % if it "
        "comes last. So the mean over all orders is taken in which they may come: its "
        "<b>effect</b> (its Shapley value): positive where it made the token likelier. The effects "
        "add up: the base's logarithm and all effects give the mixture's.",
        "The largest effect gives the token its colour, the stronger the more; a letter stands "
        "where the colour changes. <b>No colour: the base alone would have said it nearly as "
        "readily</b> (no adapter made it 1.2 times likelier). The line below a token shows what "
        "part each adapter had in that, and the percents on top are means over the answer.",
        "Switch an adapter off below, and see such a number come true. Behind the bar stand its "
        "weights, means over the modules that an adapter has, so they need not add up to 1, and "
        "the <b>entropy</b>, which says how even the weights of the gate are: 0 where one adapter "
        "has all, {even} (the logarithm of 3) where all three have the same.",
    ),
    "Mixture against base": (
        "Did the adapters change the answer? Of all possible tokens the likeliest is taken here. "
        "The base and the mixture can be "
        "asked at the same place, after the same text. The mixture here is that of "
        "<code>ramole</code>. Pick a token to see both.",
        "At {differ_token} the base alone would have gone on with {differ_base} "
        "({differ_base_chance} %), as every triple of the prompt begins. The mixture says "
        "{differ_mixture} ({differ_mixture_chance} %), and the name is not said again. Left "
        "alone from the first token on, the base invented “a type of coffee that is not only "
        "delicious”, and said nothing of the river and the rating.",
        "At {agree_token} both are sure of the same token ({agree_base_chance} % and "
        "{agree_mixture_chance} %). There the adapters were not needed.",
        "At {end_token} the base is in doubt: it ends the answer with {end_base_chance} %, and "
        "with {end_second_chance} % it begins one more sentence, {end_second}. The mixture ends "
        "it ({end_mixture_chance} %): the adapters taught it the form of the task, and when to "
        "stop.",
        "One more thing can be seen here. Where the first sentence ends, the mixture gave "
        "{close_each}: none is far ahead, and each can go on well. But a small model makes "
        "mistakes too, and step 10 says how good its answers are.",
    ),
    "Many requests, one batch": (
        "A <b>request</b> is a prompt on its way to an answer. To compute one token, all "
        "numbers of the base have to be read from memory. Computing a token each for several "
        "requests needs that reading only once. So the requests of several people are put "
        "together into a <b>batch</b>, as its rows, and at every step each row gets one token.",
        "Here every request may have different adapters. <var>W x</var> is computed for all "
        "rows together. Then each row adds only the <var>v</var> of its own adapters, with "
        "its own weights. A row that has ended makes room for the next request that waits.",
        "Measured: {users} browsers, run by a program, asked this page at once, and all answers "
        "were there {times_faster} times as fast as when they asked one after the other (median of "
        "{rounds} rounds). The browsers shared the {cores} processor cores with the model; "
        "without browsers it was {bare_times_faster} times.",
    ),
    "When nothing fits": (
        "One adapter is always the nearest, even for a prompt that none was made for. Mixed in "
        "there, it would spoil an answer that the base can give by itself.",
        "So the base has a vector too, made of everyday prompts: advice, small talk, opinions. "
        "Adapters answer only if the nearest one's similarity reaches a <b>threshold</b>: the "
        "prompt's similarity to the base's vector, plus {margin}. That number was fitted on "
        "prompts of which it is known whether an adapter fits. Below the threshold the base "
        "answers alone. (Near the threshold, how strongly the adapters respond decides as well.)",
        "Measured on {open_questions} prompts of {open_kinds} kinds that no adapter fits. Left to "
        "the base: of {open_each} everyday kinds used for the fit {fitted_left} %, of {open_each} "
        "others {unseen_left} %, of {open_each} kinds of tasks without an adapter only {far_left} "
        "%; together {open_left} %. Such tasks look like those of the pool, and the nearest "
        "adapter takes them: the last line below is a case. (Brackets show how sure a number is; "
        "step 10 explains them. Here kinds, not prompts, are drawn again.)",
    ),
    "How one knows that it works": (
        "One good answer proves nothing. So {questions} prompts with known answers, from "
        "{tasks} tasks, were given to each method. Each answer was scored from 0 to 100: by exact "
        "match, or by how much wording it shares with the known answer, as suits its task. None of "
        "these prompts was used to train or to choose anything; others of the same tasks were.",
        "This was done twice. First <b>an adapter fits</b>: the whole pool is there, with an "
        "adapter trained for the task. Then <b>it is hidden</b>: that adapter is taken away, as "
        "if nobody had made it yet, and the others must help out.",
        "The numbers in brackets are the <b>interval</b>. Draw {questions} times from these "
        "prompts, so that some come twice and some never, and take the mean. Of many such means, "
        "95 in 100 lie between the two. Two methods can be told apart only if the interval of "
        "their difference does not contain 0; for that one whole tasks are drawn, for other tasks "
        "may come. Differences are taken prompt by prompt, so the lines of two methods may overlap "
        "although they can be told apart.",
        "The papers behind the methods compare them with one another. {claims} of these "
        "comparisons were made again with this small model: {claims_same} came out as the paper "
        "has it, {claims_other} the other way round, and of {claims_unclear} the interval cannot "
        "tell. The tab Results has each of them.",
    ),
}
